"""Post-training accuracy repair: corrections of an int8 model without training, until the loss is small enough."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.backends.vendor import load_exported
from edgewright.compress.int8_quantizer import LayerScheme
from edgewright.compress.module import to_module, to_program, trace
from edgewright.compress.passes import Bench, Compressed
from edgewright.compress.repair_search import METHODS, Candidate, Plan, Search, Stage
from edgewright.compress.sensitivity import sensitivity_rows
from edgewright.core.errors import (
    BudgetError,
    DataError,
    FormatMismatchError,
    UnknownNameError,
    UsageError,
)
from edgewright.core.program import Program
from edgewright.sources.torch_export import export_module

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from edgewright.compress.passes import Batch

_MAX_NAMES = 4
_FALLBACKS = (LayerScheme.FLOAT, LayerScheme.W8)
# Seen when PT2E programs with int16 activations in all or some layers were converted for each runtime.
_NO_INT16 = (
    "no program with int16 activations (w8a16) runs the same everywhere: litert-torch writes 32-bit biases, which "
    "LiteRT's int16 kernels refuse; ONNX of the opset in use has no int16 in QuantizeLinear; OpenVINO computes other "
    "numbers; ExecuTorch's XNNPACK has no int16"
)


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """How much may be lost, and what may be done about it.

    Attributes:
        drop_points: the loss that is accepted, in percentage points of top-1; without labels, of changed answers.
        methods: what may be tried, of equalize, bias, round, precision; always in this order.
        iterations: steps of adaptive rounding for each layer.
        fallback: what a layer becomes that int8 does not suit: "float", or "w8" with int8 weights and float
            activations, which ExecuTorch cannot run.
        weight_bytes: size of all weights to reach with 4 bits in some layers, where the loss allows it; 0 for none.
        replace_relu6: make relu6 relu where that lets layers be equalized; it changes the function where it clips.
    """

    drop_points: float = 0.5
    methods: tuple[str, ...] = METHODS
    iterations: int = 400
    fallback: str = "float"
    weight_bytes: int = 0
    replace_relu6: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            UnknownNameError: no such method or fallback.
            UsageError: a number is out of range.
        """
        for method in self.methods:
            if method not in METHODS:
                raise UnknownNameError.of("method of repair", method, METHODS)
        if self.fallback == "w8a16":
            raise UsageError(f"the fallback w8a16 cannot be made: {_NO_INT16}. Use float or w8.")
        if self.fallback not in _FALLBACKS:
            raise UnknownNameError.of("fallback of repair", self.fallback, _FALLBACKS)
        if not 0 <= self.drop_points <= 100:
            raise UsageError(f"drop_points is {self.drop_points}; expected 0..100.")
        if not 1 <= self.iterations <= 100_000:
            raise UsageError(f"iterations is {self.iterations}; expected 1..100000.")
        if self.weight_bytes < 0:
            raise UsageError(f"weight_bytes is {self.weight_bytes}; expected 0 (no target) or more.")


class RepairPass:
    """Quantization to w8a8 that loses no more than it may, as recipes name it."""

    name = "repair"
    summary = "Win back what quantization lost, without training."
    precisions = ("fp32",)
    makes = "w8a8"
    Options = RepairOptions

    def run(self, program: Program, options: RepairOptions, bench: Bench) -> Compressed:
        """Return `program` quantized and repaired; every runtime with int8 kernels builds it without calibration.

        Raises:
            FormatMismatchError: not a `.pt2` in fp32.
            DataError: no calibration samples, or labels that do not fit.
            ConversionError: the model has no class scores, or PT2E cannot quantize it.
            BudgetError: no combination of the methods is inside the budget.
        """
        if program.format != "pt2" or program.precision not in self.precisions:
            raise FormatMismatchError(
                f"repair quantizes float PyTorch programs, but {program.path.name} is {program.format} in "
                f"{program.precision}. Put it before the passes that quantize."
            )
        bench.folder.mkdir(parents=True, exist_ok=True)
        search, best = _search(
            to_module(program), bench.calibration, bench.labels, options, bench.seed, bench.report
        )
        stage = best.stage
        made = to_program(
            best.module,
            program,
            bench.calibration[0],
            folder=bench.folder,
            step=f"repair({stage.title}, {len(stage.layers)} layers not w8a8)",
        )
        tables = {"repair": [_stage_row(tried, search) for tried in search.stages]}
        if search.table:
            tables["sensitivity"] = _with_precisions(sensitivity_rows(search.table), stage)
        return Compressed(
            program=made, facts=_facts(search, stage), tables=tables, notes=_notes(search, stage)
        )


PASS = RepairPass()


def repair(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor],
    *,
    calibration: Sequence[Batch],
    labels: Sequence[torch.Tensor] | None = None,
    drop_points: float = 0.5,
    methods: Sequence[str] = METHODS,
    iterations: int = 400,
    fallback: Literal["float", "w8"] = "float",
    weight_bytes: int = 0,
    replace_relu6: bool = False,
    seed: int = 0,
    report: Callable[[str, float | None], None] | None = None,
) -> ExportedProgram:
    """Return `module` in w8a8 with at most `drop_points` lost; saved as `.pt2`, every runtime lowers it.

    Plain quantization, equalization, bias correction, adaptive rounding and then float layers are tried in this
    order, each on top of the best so far, until the loss is inside the budget. Every second batch of `calibration`
    measures the loss, the others fit the corrections. `module` itself is not changed.

    Args:
        example_inputs: the tensors of one call, batch axis first.
        calibration: batches of real training inputs, each one tensor per input.
        labels: class numbers int64 [n] of each batch; without them a changed answer counts as lost.
        drop_points, methods, iterations, fallback, weight_bytes, replace_relu6: see `RepairOptions`.
        report: called with a line of text after each combination.
    Raises:
        UsageError: an option is out of range, or the examples do not fit `module`.
        DataError: no calibration, or labels that do not fit.
        ConversionError: the model has no class scores, or cannot be quantized.
        BudgetError: no combination of the methods is inside the budget.
    """
    options = RepairOptions(
        drop_points=drop_points,
        methods=tuple(methods),
        iterations=iterations,
        fallback=fallback,
        weight_bytes=weight_bytes,
        replace_relu6=replace_relu6,
    )
    traced = trace(module, example_inputs)
    _, best = _search(traced, calibration, labels, options, seed, report or _silent)
    return _exported(best, module, example_inputs)


def correct(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor],
    *,
    calibration: Sequence[Batch],
    methods: Sequence[str],
    layers: Mapping[str, LayerScheme] | None = None,
    iterations: int = 400,
    seed: int = 0,
) -> ExportedProgram:
    """Return `module` in w8a8 with exactly these corrections, whatever is lost; none is plain quantization.

    Args:
        calibration: as of `repair`, and split as there, so that the two can be compared.
        methods: of equalize, bias, round.
        layers: layer -> precision of those that are not w8a8.
    Raises:
        UsageError, DataError, ConversionError: as of `repair`; also where no layers can be equalized.
        UnknownNameError: no such method or layer.
    """
    for method in methods:
        if method not in METHODS[:-1]:
            raise UnknownNameError.of("correction", method, METHODS[:-1])
    options = RepairOptions(methods=tuple(methods), iterations=iterations)
    traced = trace(module, example_inputs)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        search = _make_search(traced, calibration, None, options, seed, _silent, Path(folder))
        made = search.attempt(tuple(method for method in METHODS if method in methods), layers or {})
        return _exported(made, module, example_inputs)


def _exported(
    made: Candidate, module: torch.nn.Module, example_inputs: Sequence[torch.Tensor]
) -> ExportedProgram:
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        origin = type(module).__name__
        return load_exported(export_module(made.module, example_inputs, workdir=Path(folder), origin=origin))


def _search(
    module: GraphModule,
    calibration: Sequence[Batch],
    labels: Sequence[torch.Tensor] | None,
    options: RepairOptions,
    seed: int,
    report: Callable[[str, float | None], None],
) -> tuple[Search, Candidate]:
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        search = _make_search(module, calibration, labels, options, seed, report, Path(folder))
        best = search.run()
    if not search.is_inside(best.stage):
        raise BudgetError(
            f"repair reached {best.stage.scores.drop_points:.2f} points lost with {best.stage.title}, but at most "
            f"{options.drop_points} are accepted. Allow all of {', '.join(METHODS)}, accept more, or train with "
            "quantization (qat)."
        )
    return search, best


def _make_search(
    module: GraphModule,
    calibration: Sequence[Batch],
    labels: Sequence[torch.Tensor] | None,
    options: RepairOptions,
    seed: int,
    report: Callable[[str, float | None], None],
    folder: Path,
) -> Search:
    if not calibration:
        raise DataError("repair needs calibration samples to measure what is lost; got none.")
    if labels is not None and [len(batch) for batch in labels] != [len(batch[0]) for batch in calibration]:
        raise DataError(
            f"got labels for {len(labels)} batches of calibration, but there are {len(calibration)}, or their sizes "
            "differ. Give the labels of the same samples, batch by batch."
        )
    plan = Plan(
        methods=options.methods,
        drop_points=options.drop_points,
        iterations=options.iterations,
        fallback=LayerScheme(options.fallback),
        weight_bytes=options.weight_bytes or None,
        replace_relu6=options.replace_relu6,
        seed=seed,
    )
    return Search(module, calibration, labels, plan, folder, report)


def _silent(line: str, share: float | None) -> None:
    """Report nothing."""


def _stage_row(stage: Stage, search: Search) -> dict[str, float | int | str]:
    scores = stage.scores
    row: dict[str, float | int | str] = {
        "methods": stage.title,
        "layers not w8a8": len(stage.layers),
        "weight bytes": search.weight_bytes(stage.layers),
        "SQNR dB": round(scores.sqnr_db, 2),
        "top-1 agreement %": round(100 * scores.agreement, 2),
        "drop points": round(scores.drop_points, 2),
    }
    if scores.accuracy is not None:
        row["accuracy %"] = round(100 * scores.accuracy, 2)
    return row


def _with_precisions(
    rows: list[dict[str, float | int | str]], stage: Stage
) -> list[dict[str, float | int | str]]:
    return [{**row, "precision": str(stage.layers.get(str(row["layer"]), LayerScheme.W8A8))} for row in rows]


def _facts(search: Search, stage: Stage) -> dict[str, float | int | str]:
    plain = search.stages[0].scores
    facts: dict[str, float | int | str] = {
        "methods": stage.title,
        "drop points of plain w8a8": round(plain.drop_points, 2),
        "drop points": round(stage.scores.drop_points, 2),
        "top-1 agreement %": round(100 * stage.scores.agreement, 2),
        "layers not w8a8": _layers_text(stage),
        "weight bytes": search.weight_bytes(stage.layers),
        "measured on samples": stage.scores.samples,
    }
    if stage.scores.accuracy is not None:
        facts["accuracy %"] = round(100 * stage.scores.accuracy, 2)
    return facts


def _layers_text(stage: Stage) -> str:
    """Return the layers with another precision, or how many there are; the table of sensitivities has them all."""
    if not stage.layers:
        return "none"
    if len(stage.layers) <= _MAX_NAMES:
        return ", ".join(f"{name} ({scheme})" for name, scheme in stage.layers.items())
    counts = Counter(str(scheme) for scheme in stage.layers.values())
    return ", ".join(f"{count} {scheme}" for scheme, count in counts.items())


def _notes(search: Search, stage: Stage) -> tuple[str, ...]:
    notes = list(search.notes)
    if not search.is_held_out:
        notes.append(
            "the loss was measured on the samples that the corrections were fitted to: give two batches or more"
        )
    if LayerScheme.W4A8 in stage.layers.values():
        notes.append(
            "weights of 4 bits take 8 in files of runtimes that have no 4-bit kernels; .ewz stores their 4"
        )
    return tuple(notes)
