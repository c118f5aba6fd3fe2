"""The main path: load, convert, verify, measure, gate, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.backends.conversion import Conversion, convert_all
from edgewright.bridges.crossing import to_pt2
from edgewright.core.budget import Budget
from edgewright.core.errors import UsageError
from edgewright.core.files import work_folder
from edgewright.core.program import Program
from edgewright.core.progress import Progress, silent
from edgewright.core.result import Result, Summary, exit_code_of
from edgewright.core.target import Precision, Quantizer
from edgewright.core.tensors import Layout, parse_layout
from edgewright.data.preparation import Prepared, prepare
from edgewright.measure.divergence import explain_divergence
from edgewright.measure.evaluation import evaluate_all
from edgewright.measure.judgement import judge_all
from edgewright.measure.selection import pareto_front, recommend
from edgewright.processing.choice import choose, rebind
from edgewright.processing.processor import Plan, Signature, plan
from edgewright.processing.specification import read_specification, write_specification
from edgewright.recipe import DEFAULT_PRECISIONS, DEFAULT_RUNTIMES, Recipe
from edgewright.report.environment import describe_host
from edgewright.sources import load, load_module
from edgewright.sources.detect import detect_format, is_factory
from edgewright.workers.cache import Cache, default_root
from edgewright.workers.pool import call_once
from edgewright.workspace import claim_output, install_artifacts, save_data

_RESIZES = ("resize into", "short_side into", "letterbox into")  # of what went inside

if TYPE_CHECKING:
    import torch

    from edgewright.core.tensors import Array

    ArrayData = Mapping[str, Array] | tuple[Array, Array] | Array


@dataclass(frozen=True)
class BuildResult:
    """What a build found; prints as the table, shows in a notebook, and gives records."""

    summary: Summary
    out: Path
    require: str = "all"

    @property
    def results(self) -> tuple[Result, ...]:
        """One record per runtime x precision x threads."""
        return self.summary.results

    @property
    def recommended(self) -> Result | None:
        """The result to ship, or None."""
        return next((r for r in self.results if r.id == self.summary.recommended), None)

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.out / "report.html"

    @property
    def exit_code(self) -> int:
        """0 when every target is ok, or with `require="one"` when one is recommended; else `exit_code_of`."""
        if self.require == "one" and self.summary.recommended is not None:
            return 0
        return exit_code_of(self.results)

    def records(self) -> list[dict[str, object]]:
        """Return the rows of results.json."""
        return [result.to_json() for result in self.results]

    def __str__(self) -> str:
        from edgewright.report.table import to_text

        return to_text(self.summary)

    def _repr_html_(self) -> str:
        from edgewright.report.table import to_html_table

        return to_html_table(self.summary)


def build(
    model: str | Path | torch.nn.Module,
    *,
    example_inputs: Sequence[torch.Tensor] | torch.Tensor | None = None,
    data: str | Path | ArrayData | None = None,
    calibration: str | Path | ArrayData | None = None,
    to: Sequence[str] = DEFAULT_RUNTIMES,
    precision: Sequence[str] = DEFAULT_PRECISIONS,
    threads: Sequence[int] = (1,),
    processing: str | Path = "",
    fold_processing: bool = False,
    metric: str = "",
    budget: Mapping[str, float] | None = None,
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
    signature: str = "",
    trust: bool = False,
    layout: Literal["", "nchw", "nhwc"] = "",
    quantizer: Literal["", "pt2e", "native", "accuracy"] = "",
    calibration_count: int = 512,
    values: Mapping[str, float] | None = None,
    options: Sequence[str] = (),
    seed: int = 0,
    require: Literal["all", "one"] = "all",
    out: str | Path = "edgewright-out",
    use_cache: bool = True,
    progress: Progress = silent,
) -> BuildResult:
    """Build every runtime x precision x threads of `model`, and prove each one.

    Args:
        model: a live module (with `example_inputs`), a model file, or `package.module:factory`.
        example_inputs: the tensors of one call of a live module, batch axis first.
        data: evaluation set: a path as on the command line, arrays by input name with "labels",
            a pair (inputs, labels), or the inputs of a single-input model.
        calibration: the set for activation ranges, given like `data`; default: a seeded sample of `data`.
        processing: the specification of pre- and post-processing: its file, or the name of a preset.
        fold_processing: move what the graph can carry of it into the model.
        metric: top1, top5, mse, cosine, roc_auc or `module:function`; default: cosine to the source's outputs.
        budget: upper limits by name, e.g. {"latency_p95_ms": 50, "size_mb": 5, "drop_points": 0.5}.
        input_shapes: of a factory's inputs, or for the dynamic sizes of a file, e.g. ("ids=1x16:int64",).
        signature: of a SavedModel; default: serving_default.
        trust: run code that the model carries (Lambda layers, PyFunc), in a worker only.
        values: constants for inputs that the data do not hold.
        options: of single runtimes, e.g. ("ethos-u55-128.memory_mode=Sram_Only",).
        out: folder for artifacts, evidence, recipe and report.
        progress: called with (target id, step, state) as the work goes on.
    Raises:
        UsageError: the request or the data do not fit the model. One failing target raises nothing: see its status.
    """
    folder = claim_output(Path(out))
    name = model if isinstance(model, str | Path) else f"{type(model).__module__}:{type(model).__qualname__}"
    recipe = Recipe(
        model=str(name),
        weights=str(weights or ""),
        input_shapes=tuple(input_shapes),
        signature=signature,
        trust=trust,
        layout=layout,
        data=save_data(data, folder / "source" / "eval.npz"),
        calibration=save_data(calibration, folder / "source" / "calibration.npz"),
        calibration_count=calibration_count,
        runtimes=tuple(to),
        precisions=tuple(precision),
        threads=tuple(threads),
        quantizer=quantizer,
        processing=str(processing),
        fold_processing=fold_processing,
        metric=metric,
        budget=tuple(f"{key}={value:g}" for key, value in (budget or {}).items()),
        values=tuple(f"{key}={value:g}" for key, value in (values or {}).items()),
        options=tuple(options),
        seed=seed,
        require=require,
    )
    program = None
    if not isinstance(model, str | Path):
        if example_inputs is None:
            raise UsageError("a live module needs example_inputs: the tensors of one call, batch axis first.")
        program = load_module(model, example_inputs, workdir=folder / "source", layout=parse_layout(layout))
        recipe = replace(recipe, model=str(program.path), layout="")
    return run_recipe(recipe, out=folder, use_cache=use_cache, progress=progress, program=program)


def run_recipe(
    recipe: Recipe,
    *,
    out: Path,
    use_cache: bool = True,
    progress: Progress = silent,
    program: Program | None = None,
) -> BuildResult:
    """Run `recipe` and write everything to `out`: this is the product, on one screen."""
    from edgewright.report.html import write_report
    from edgewright.report.records import write_results

    recipe = recipe.resolved()
    if not is_factory(recipe.model):
        detect_format(Path(recipe.model))  # before any work: a wrong path should fail at once
    folder = claim_output(out)
    cache = Cache(root=default_root() if use_cache else None)
    with work_folder() as work:
        progress("source", "load", "running")
        program = program or load_source(recipe, folder / "source", layout=parse_layout(recipe.layout))
        program, processing = plan_processing(recipe, program, folder / "source")
        prepared = prepare(replace(recipe.data_request(), processing=processing), program, work)
        progress("source", "load", "done")
        targets = recipe.targets()
        conversions = convert_all(
            program, targets, prepared.calibration, workdir=work, cache=cache, progress=progress
        )
        measured = evaluate_all(
            program, targets, conversions, prepared, workdir=work, cache=cache, progress=progress
        )
        results = judge_all(targets, conversions, measured, prepared, Budget.parse(recipe.budget))
        results = explain_divergence(results, conversions, measured, prepared, program)
        results = install_artifacts(results, conversions, folder, processing)
        summary = _summarise(recipe, program, prepared, conversions, results, measured.is_timing_kept)
        recipe.save(folder / "recipe.toml")
        write_results(summary, folder)
        write_report(summary, folder / "report.html")
    cache.prune()
    return BuildResult(summary=summary, out=folder, require=recipe.require)


def plan_processing(
    recipe: Recipe, program: Program, workdir: Path, *, has_boxes_inside: bool | None = None
) -> tuple[Program, Plan | None]:
    """Return the program, and the recipe's processing checked against it; None where the recipe names none.

    With `fold_processing` both are what is left of them once the processing went into the model.

    Args:
        has_boxes_inside: whether boxes are decoded and suppressed in the folded model; default: where no precision
            of the recipe quantizes.
    Raises:
        UsageError: it cannot be read, does not fit, or nothing of it can be folded.
        ConversionError: the folded model does not agree with model and processing apart.
    """
    if not recipe.processing:
        return program, None
    signature = Signature(inputs=program.inputs, outputs=program.outputs)
    checked = plan(choose(recipe.processing, {"": program.path}, {"": signature}), signature)
    if not recipe.fold_processing:
        return program, checked
    if has_boxes_inside is None:
        has_boxes_inside = set(recipe.precisions) <= {Precision.FP32, Precision.FP16}
    raw = next((path for path in (recipe.data, recipe.calibration) if path and Path(path).is_dir()), "")
    bridged = to_pt2(program, workdir / "pt2", what="--fold-processing")
    own = Signature(inputs=bridged.inputs, outputs=bridged.outputs)
    answer = call_once(
        "edgewright.compress.operations:fold",
        {
            "program": bridged.to_json(),
            "specification": str(
                write_specification(rebind(checked.specification, signature, own), workdir / "processing")
            ),
            "folder": str(workdir / "folded"),
            "is_float": has_boxes_inside,
            "data": str(Path(raw).resolve()) if raw else "",
        },
    )
    record, inside, outside = answer["program"], answer["inside"], answer["outside"]
    assert isinstance(record, dict) and isinstance(inside, list) and isinstance(outside, list)
    folded = Program.from_json(record)
    is_resized = any(str(text).startswith(_RESIZES) for text in inside)
    if is_resized and not has_boxes_inside and recipe.quantizer not in ("", Quantizer.PT2E):
        raise UsageError(
            f"--quantizer {recipe.quantizer} would quantize the resize that is folded into the graph, too. Use pt2e, "
            "which leaves it in float, or give the input of the processing no height and width."
        )
    texts = (f"folded: {', '.join(inside)}; {answer['proof']}", *outside)
    if program.precision != folded.precision:
        texts = (
            *texts,
            f"the source is {program.precision}, the folded model computes in {folded.precision}",
        )
    folded = replace(folded, notes=(*folded.notes, *texts))
    left = Signature(inputs=folded.inputs, outputs=folded.outputs)
    return folded, plan(read_specification(Path(str(answer["specification"]))), left)


def load_source(recipe: Recipe, workdir: Path, *, layout: Layout | None) -> Program:
    """Return the program of the recipe's model; what must be written goes to `workdir`."""
    return load(
        recipe.model,
        workdir=workdir,
        weights=Path(recipe.weights) if recipe.weights else None,
        input_shapes=recipe.input_shapes or None,
        layout=layout,
        signature=recipe.signature or None,
        trust=recipe.trust,
    )


def _summarise(
    recipe: Recipe,
    program: Program,
    prepared: Prepared,
    conversions: Mapping[str, Conversion],
    results: Sequence[Result],
    is_timing_kept: bool,
) -> Summary:
    recommended, why = recommend(results)
    toolchain: dict[str, str] = {}
    for conversion in conversions.values():
        if conversion.artifact is not None:
            toolchain.update(conversion.artifact.toolchain)
    return Summary(
        source={
            "path": program.origin,
            "format": program.origin_format,
            "sha256": program.sha256,
            "precision": program.precision,
            "inputs": [str(spec) for spec in program.inputs],
            "outputs": [str(spec) for spec in program.outputs],
            "history": list(program.history),
        },
        results=tuple(results),
        pareto=pareto_front(results),
        recommended=recommended,
        why=why,
        warnings=(*program.notes, *prepared.warnings),
        conditions={
            "host": describe_host(),
            "toolchain": dict(sorted(toolchain.items())),
            "data": prepared.dataset.description,
            "data_sha256": prepared.dataset.sha256,
            "calibration": prepared.calibration.description if prepared.calibration else "none",
            "metric": prepared.metric.name if prepared.metric else "none",
            "budget": Budget.parse(recipe.budget).limits(),
            "seed": recipe.seed,
            "timing": "kept from an earlier build of the same targets"
            if is_timing_kept
            else "measured in this build",
        },
    )
