"""How the command line shows records: tables on stdout for people, JSON on stdout for programs."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from edgewright.core.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.benchmark import Benchmark
    from edgewright.compression import CompressionResult
    from edgewright.core.tensors import Array
    from edgewright.doctor import Check, Diagnosis
    from edgewright.measure.latency import LatencySummary
    from edgewright.pipeline import BuildResult
    from edgewright.single import Verification
    from edgewright.sources.inspection import Inspection
    from edgewright.workers.environments import Toolchain

Json = Annotated[
    bool, typer.Option("--json", help="Print the record as JSON on stdout, and nothing else there.")
]
_NAME_WIDTH = 40
_SHOWN_LAYERS = 20
_SHOWN_VALUES = 10
_FAMILY = 4  # so many rows that say the same are shown as one
_PIPE_COLUMNS = 120  # a pipe has no width; rich would take 80 and leave columns out


class Record(Protocol):
    """Something that shows itself."""

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        ...

    def render(self, console: Console) -> None:
        """Print the record for people."""
        ...


@contextmanager
def progress(as_json: bool, target_ids: Sequence[str], *, unit: str = "targets") -> Iterator[Progress]:
    """Show live progress on stderr; with --json on a terminal as well, since stdout stays clean."""
    from edgewright.report.progress import LiveProgress

    with LiveProgress(target_ids, unit=unit) as live:
        yield live


def build_result(result: BuildResult, as_json: bool) -> None:
    """Print the table, why, and where everything is."""
    if as_json:
        _json(result.summary.to_json())
        return
    from edgewright.report.table import render_table

    console = _console()
    render_table(result.summary, console)
    console.print(
        f"\nReport: {result.report}\nRecipe: {result.out / 'recipe.toml'}", soft_wrap=True, highlight=False
    )


def compression(result: CompressionResult, as_json: bool) -> None:
    """Print the table of all steps, and where everything is."""
    if as_json:
        _json(result.summary.to_json())
        return
    from edgewright.report.compression import render_table

    console = _console()
    render_table(result.summary, console)
    console.print(
        f"\nReport: {result.report}\nModel: {result.model}\nRecipe: {result.out / 'compress.toml'}",
        soft_wrap=True,
        highlight=False,
    )


def verification(found: Verification, as_json: bool) -> None:
    """Print status, agreement and reason of one artifact."""
    if as_json:
        _json(found.to_json())
        return
    result, parity = found.result, found.result.parity
    rows = [("target", result.id), ("status", str(result.status))]
    if found.artifact is not None:
        rows += [("artifact", str(found.artifact.shown_path)), ("sha256", found.artifact.sha256)]
    if result.download_bytes is not None:
        rows.append(("download", f"{result.download_bytes:,} bytes as .ewz"))
    if result.size_bytes is not None:
        rows.append(("disk", f"{result.size_bytes:,} bytes"))
    if parity is not None:
        rows.append(("compared on", f"{parity.n} samples ({parity.inputs})"))
        rows.append(("max abs difference", _number(parity.max_abs)))
        rows.append(("cosine", _number(parity.cosine)))
        rows.append(("SNR", f"{_number(parity.snr_db)} dB" if parity.snr_db is not None else "no difference"))
        if parity.agreement is not None:
            rows.append(("top-1 agreement", f"{100 * parity.agreement:.2f} %"))
    if result.metric is not None:
        m = result.metric
        interval = f" ({m.drop_ci95[0]:+.2f}..{m.drop_ci95[1]:+.2f})" if m.drop_ci95 else ""
        rows.append(
            (
                m.name,
                f"{m.value:.4f}, source {m.source:.4f}, drop {m.drop_points:+.2f}{interval} points, n={m.n}",
            )
        )
    rows += [("note", note) for note in dict.fromkeys((*found.source_notes, *result.notes))]
    if result.reason:
        # Rows that nothing here runs repeat their notes as reasons, for tables that have no notes.
        rows.append(
            ("reason", result.reason.partition(f"; {result.notes[0]}")[0] if result.notes else result.reason)
        )
    _pairs(rows)


def toolchains(found: Sequence[Toolchain], as_json: bool) -> None:
    """Print each toolchain's state, size and the command that brings it."""
    if as_json:
        _json({"toolchains": [toolchain.to_json() for toolchain in found]})
        return
    from rich.table import Table

    table = Table("toolchain", "state", box=None, pad_edge=False)
    table.add_column("packages", justify="right")
    table.add_column("size", justify="right")
    table.add_column("to get it", overflow="fold")
    for toolchain in found:
        state = toolchain.state.value + (f" ({toolchain.detail})" if toolchain.detail else "")
        size = f"{toolchain.size_bytes / 1e6:,.0f} MB" if toolchain.size_bytes else "-"
        table.add_row(toolchain.name, state, str(toolchain.locked), size, toolchain.fix or "-")
    _console().print(table)


def _end_of(name: str) -> str:
    """Return the end of a long name, which tells more of a layer than its beginning."""
    return name if len(name) <= _NAME_WIDTH else "…" + name[1 - _NAME_WIDTH :]


def inspection(found: Inspection, as_json: bool) -> None:
    """Print what is known of a model without running it."""
    if as_json:
        _json(found.to_json())
        return
    from rich.table import Table

    rows = [("model", found.name), ("format", found.format), ("precision", found.precision)]
    rows += [("sha256", found.sha256), ("size", f"{found.size_bytes:,} bytes")]
    rows += [("input", str(spec)) for spec in found.inputs]
    rows += [("output", str(spec)) for spec in found.outputs]
    rows.append(("parameters", f"{found.parameters:,}"))
    rows.append(("MACs", f"{found.macs:,}" if found.macs is not None else f"not known: {found.macs_reason}"))
    operators = sorted(found.operators.items(), key=lambda item: (-item[1], item[0]))
    rows.append(("operators", ", ".join(f"{name} {count}" for name, count in operators)))
    rows += [("note", note) for note in found.notes]
    _pairs(rows)
    table = Table("layer", "operator", "output", box=None, pad_edge=False)
    for heading in ("parameters", "MACs"):
        table.add_column(heading, justify="right")
    for layer in found.layers[:_SHOWN_LAYERS]:
        macs = f"{layer.macs:,}" if layer.macs else ""
        shape = "x".join("?" if dim is None else str(dim) for dim in layer.output_shape or ())
        table.add_row(
            _end_of(layer.name),
            layer.operator,
            shape,
            f"{layer.parameters:,}" if layer.parameters else "",
            macs,
        )
    console = _console()
    console.print()
    console.print(table)
    if len(found.layers) > _SHOWN_LAYERS:
        console.print(f"... and {len(found.layers) - _SHOWN_LAYERS} more layers (--json shows all)")


def benchmark(found: Benchmark, as_json: bool) -> None:
    """Print percentiles per artifact, and the verdicts."""
    if as_json:
        _json(found.to_json())
        return
    from rich.table import Table

    table = Table("artifact", box=None, pad_edge=False)
    for heading in ("p50 ms", "95 % interval", "p95 ms", "p99 ms", "CPU p50 ms", "n", "memory MB", "valid"):
        table.add_column(heading, justify="right")
    for name, summary in found.latencies.items():
        memory = found.memory_bytes.get(name)
        table.add_row(
            name, *_latency(summary), f"{memory / 1e6:.1f}" if memory is not None else "not measured",
            "yes" if summary.valid else "no",
        )  # fmt: skip
        whole = found.end_to_end.get(name)
        if whole is not None:
            table.add_row("  end to end", *_latency(whole), "", "yes" if whole.valid else "no")
            stages = found.stages[name]
            parts = (
                ("before the model", stages.before),
                ("model", stages.model),
                ("behind it", stages.behind),
            )
            for what, part in parts:
                table.add_row(f"    {what}", f"{part:.4g}")
    console = _console()
    console.print(table)
    for names, suffix in ((found.latencies, ""), (found.end_to_end, ", end to end")):
        for name, summary in names.items():
            if not summary.valid:
                console.print(f"{name}{suffix}: not valid: {summary.why_invalid}", highlight=False)
    for name, why in found.unprocessed.items():
        console.print(f"{name}: not timed end to end: {why}", highlight=False)
    for comparison in found.comparisons:
        console.print(comparison.text, highlight=False)


def _latency(summary: LatencySummary) -> tuple[str, ...]:
    """Return the cells of p50, its interval, p95, p99, CPU and n."""
    low, high = summary.p50_ci95
    return (
        f"{summary.p50:.4g}", f"{low:.4g}..{high:.4g}", f"{summary.p95:.4g}", f"{summary.p99:.4g}",
        _number(summary.cpu_ms_p50), str(summary.n),
    )  # fmt: skip


def outputs(found: Mapping[str, Array], path: Path | None, as_json: bool) -> None:
    """Print name, shape, dtype and the first values of each output."""
    import numpy as np

    if as_json:
        summary = {
            name: {"shape": list(array.shape), "dtype": str(array.dtype), "values": _values(array)}
            for name, array in found.items()
        }
        _json({"outputs": summary, "path": None if path is None else str(path)})
        return
    for name, array in found.items():
        flat = array.reshape(-1)[:_SHOWN_VALUES]
        more = " ..." if array.size > _SHOWN_VALUES else ""
        print(f"{name}: {array.dtype}{list(array.shape)} {np.array2string(flat, precision=5)}{more}")
    if path is not None:
        print(f"written to {path}")


def _values(array: Array) -> list[object]:
    """Return the first values; JSON has no NaN, so that becomes text."""
    flat = array.reshape(-1)[:_SHOWN_VALUES].tolist()
    return [str(v) if isinstance(v, float) and not math.isfinite(v) else v for v in flat]


def diagnosis(found: Diagnosis, as_json: bool) -> None:
    """Print what is here and what is missing."""
    if as_json:
        _json(found.to_json())
        return
    from rich.table import Table

    table = Table("", "component", "found", box=None, pad_edge=False)
    for name, check in _families(found.checks):
        # What is not needed and not here is no fault; the row below it says how to get it.
        mark = "MISSING" if not check.is_ok else "-" if check.fix else "ok"
        table.add_row(mark, name, check.found)
        if check.fix:
            table.add_row("", "", f"-> {check.fix}")
    console = _console()
    console.print(table, highlight=False)
    console.print(f"\n{found.host['processor']}, {found.host['cores']} cores", highlight=False)


def _families(checks: Sequence[Check]) -> Iterator[tuple[str, Check]]:
    """Yield name and finding of each row: many of one family that found the same share one, "ethos-u* (11)"."""
    for _, group in itertools.groupby(checks, lambda check: (check.is_ok, check.found, check.fix)):
        rows = list(group)
        stem = rows[0].name.rstrip("0123456789-")
        if len(rows) >= _FAMILY and all(row.name.startswith(stem) for row in rows):
            yield f"{stem}* ({len(rows)})", rows[0]
        else:
            yield from ((row.name, row) for row in rows)


def record(found: Record, as_json: bool) -> None:
    """Print a record that knows how."""
    if as_json:
        _json(found.to_json())
    else:
        found.render(_console())


def _console() -> Console:
    from rich.console import Console

    is_sized = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(file=sys.stdout, width=None if is_sized else _PIPE_COLUMNS)


def printable(text: str) -> str:
    """Return `text` with what would steer a terminal, or break its line, as an escape: file names are anybody's."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _json(value: object) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _pairs(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
