"""The command `explain`: what each runtime would make of a model, before anything is converted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright.cli import show
from edgewright.cli.options import Shapes, Weights

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.explain.coverage import Coverage, Explanation

_SHOWN_REASONS = 12


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or package.module:factory.")],
    to: Annotated[
        str, typer.Option("--to", metavar="NAME,...", help="Runtimes, comma-separated; default: all.")
    ] = "",
    weights: Weights = "",
    input_shape: Shapes = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON on stdout, and nothing else there.")
    ] = False,
) -> None:
    """Tell per runtime, without converting, which operators of MODEL are supported, fall back or block, and what to do.

    Example: edgewright explain model.onnx --to litert,openvino
    """
    from edgewright.core.errors import UsageError
    from edgewright.explain import explain as explain_program
    from edgewright.sources import load

    runtimes = tuple(name.strip() for name in to.split(",")) if to and to != "all" else ()
    if not all(runtimes):
        raise UsageError(f"--to is {to!r}; expected names separated by commas.")
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        program = load(
            model,
            workdir=Path(work),
            weights=Path(weights) if weights else None,
            input_shapes=tuple(input_shape or ()) or None,
        )
        found = explain_program(program, runtimes)
    show.record(_Shown(found), as_json)


class _Shown:
    """An explanation that shows itself."""

    def __init__(self, found: Explanation) -> None:
        self._found = found

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return self._found.to_json()

    def render(self, console: Console) -> None:
        """Print it for people."""
        render(self._found, console)


def render(found: Explanation, console: Console) -> None:
    """Print the table of runtimes, why, what to write instead, and where the cost is."""
    from rich.table import Table

    if found.macs is None and not found.parameters:  # the operators of this format are not read
        cost = "parameters and MACs not known"
    else:
        cost = f"{found.parameters:,} parameters, "
        cost += "MACs not known" if found.macs is None else f"{found.macs:,} MACs"
    console.print(f"{found.model} ({found.format}): {cost}\n", highlight=False)
    table = Table("runtime", "verdict", "operators", "accelerator", "by way of", box=None, pad_edge=False)
    for coverage in found.coverages:
        table.add_row(
            coverage.runtime,
            str(coverage.verdict),
            _counts(coverage),
            _accelerated(coverage),
            " > ".join(coverage.route),
        )
    console.print(table)
    for names, coverage in _grouped(found.coverages):
        _render_reasons(names, coverage, console)
    if found.layers:
        console.print("\nWhere the cost is:")
        costs = Table("layer", "operator", box=None, pad_edge=False)
        for heading in ("MACs", "of all", "parameters", "of all"):
            costs.add_column(heading, justify="right")
        for layer in found.layers:
            costs.add_row(
                layer.name,
                layer.operator,
                "?" if layer.macs is None else f"{layer.macs:,}",
                _percent(layer.macs_share),
                f"{layer.parameters:,}",
                _percent(layer.parameters_share),
            )
        console.print(costs)


def _counts(coverage: Coverage) -> str:
    if not coverage.operators:
        return "-"
    counts: dict[str, int] = {}
    for entry in coverage.operators:
        counts[str(entry.verdict)] = counts.get(str(entry.verdict), 0) + entry.count
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def _accelerated(coverage: Coverage) -> str:
    if coverage.partitions is None:
        return "-"
    pieces = f"{coverage.accelerator}: {coverage.partitions} partition{'s' * (coverage.partitions != 1)}"
    if coverage.accelerated_macs_share is None:
        return pieces
    return f"{pieces}, {100 * coverage.accelerated_macs_share:.0f} % of MACs"


def _grouped(coverages: Sequence[Coverage]) -> list[tuple[str, Coverage]]:
    """Return (runtimes, coverage); runtimes of which all the same is to be said are named together."""
    groups: dict[object, list[Coverage]] = {}
    for coverage in coverages:
        key = coverage.runtime if coverage.operators else (coverage.verdict, coverage.reason, coverage.notes)
        groups.setdefault(key, []).append(coverage)
    return [(", ".join(same.runtime for same in group), group[0]) for group in groups.values()]


def _render_reasons(names: str, coverage: Coverage, console: Console) -> None:
    concerned = [entry for entry in coverage.operators if entry.reason]
    if not concerned and not coverage.reason and not coverage.notes:
        return
    console.print(f"\n{names}:", highlight=False, soft_wrap=True)
    if not concerned and coverage.reason:
        console.print(f"  {coverage.verdict}: {coverage.reason}", highlight=False, soft_wrap=True)
    for entry in concerned[:_SHOWN_REASONS]:
        console.print(
            f"  {entry.verdict}: {entry.operator} x{entry.count} ({', '.join(entry.layers[:3])}): {entry.reason}",
            highlight=False,
            soft_wrap=True,
        )
        if entry.rewrite:
            console.print(f"    instead: {entry.rewrite}", highlight=False, soft_wrap=True)
    if len(concerned) > _SHOWN_REASONS:
        console.print(f"  and {len(concerned) - _SHOWN_REASONS} more (--json has all)", highlight=False)
    for note in coverage.notes:
        console.print(f"  note: {note}", highlight=False, soft_wrap=True)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
