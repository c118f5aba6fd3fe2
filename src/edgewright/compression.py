"""Compress a model by a chain of passes, and measure what each of them brought on every runtime."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.bridges.crossing import to_pt2
from edgewright.compression_recipe import CompressionRecipe, is_training
from edgewright.compression_rows import Bench, Built, Packed, build_stages, measure_stages, pack_rows
from edgewright.compression_steps import (
    Material,
    begun_steps,
    original_stage,
    remove_other_steps,
    run_steps,
)
from edgewright.core.compression import CompressionSummary, Row, StepRecord, StepState
from edgewright.core.errors import DataError, EdgewrightError, FormatMismatchError, UsageError
from edgewright.core.files import work_folder
from edgewright.core.program import Program
from edgewright.core.progress import Progress, silent
from edgewright.core.result import exit_code_of
from edgewright.core.tensors import TensorSpec, to_layout
from edgewright.data.calibration import draw
from edgewright.data.datasets import Dataset, make_dataset
from edgewright.data.handover import hand_over
from edgewright.data.metrics import get_metric
from edgewright.data.preparation import DataRequest, Prepared, prepare, read_for
from edgewright.report.environment import describe_host
from edgewright.sources import load
from edgewright.sources.detect import detect_format, is_factory
from edgewright.workers.cache import Cache, default_root
from edgewright.workspace import claim_output, install_artifacts

RECIPE_NAME = "compress.toml"
REPORT_NAME = "report.html"
_LOCK_NAME = ".lock"


@dataclass(frozen=True, kw_only=True)
class CompressionResult:
    """What a compression made; prints as the table.

    Attributes:
        error: of the step that failed, after at least one that did not; None when the chain is complete.
    """

    summary: CompressionSummary
    out: Path
    error: EdgewrightError | None = None

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.out / REPORT_NAME

    @property
    def model(self) -> Path:
        """The `.pt2` file of the last step."""
        return self.out / self.summary.steps[-1].program

    @property
    def exit_code(self) -> int:
        """That of the error, or by the last step's rows: see `core.result.exit_code_of`."""
        if self.error is not None:
            return self.error.exit_code
        return exit_code_of([row.result for row in self.summary.rows_of(self.summary.steps[-1].id)])

    def __str__(self) -> str:
        from edgewright.report.compression import to_text

        return to_text(self.summary)

    def _repr_html_(self) -> str:
        from edgewright.report.compression_page import to_html_table

        return to_html_table(self.summary)


def compress_model(
    recipe: CompressionRecipe | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    use_cache: bool = True,
    progress: Progress = silent,
) -> CompressionResult:
    """Run the passes of `recipe` one after another, then build and measure each step's model on every runtime.

    Each step keeps its model in `out/steps/<step>/model.pt2`. Whatever ends the work, `resume` goes on with the
    steps that are finished and from the last checkpoint of the one that is not.

    Args:
        recipe: or the path of its TOML file.
        out: folder for the steps, the artifacts of the last one, the recipe and the report.
        resume: go on in a folder that already holds steps; finished ones are kept where nothing about them changed.
        progress: called with (step, what it does, state) as the work goes on.
    Raises:
        UsageError: the recipe, an option or the data do not fit; or `out` holds steps and `resume` is not given.
        EdgewrightError: the first step failed. Where a later one fails, the result has the error, and the rows of
            the steps before it.
    """
    if not isinstance(recipe, CompressionRecipe):
        recipe = CompressionRecipe.read(Path(recipe))
    if not is_factory(recipe.model):
        detect_format(Path(recipe.model))  # before any work: a wrong path should fail at once
    if not (recipe.data or recipe.train_data or recipe.calibration):
        raise DataError(
            "there are no samples: give data (--data), which the steps are measured on, train_data or calibration. "
            "Random numbers are never used."
        )
    folder = _claim(Path(out), resume=resume)
    with _alone_in(folder), _import_path(recipe.import_from), work_folder() as work:
        progress("source", "load", "running")
        given = _load(recipe, folder / "source")
        recipe.check_chain(given.precision)
        original = to_pt2(given, folder / "source" / "pt2", what="compression")
        teacher = _teacher(recipe, original, folder)
        request = DataRequest(data=recipe.data, metric=recipe.metric, values=recipe.values, seed=recipe.seed)
        prepared = _with_metric(prepare(request, given, work / "data"))
        material, warnings = _material(recipe, given, original, teacher, prepared, work)
        progress("source", "load", "done")
        recipe.save(folder / RECIPE_NAME)
        first = original_stage(original, given, recipe)
        stages, error = run_steps(recipe, first, material, folder, progress)
        if error is not None and not stages:
            raise error
        if error is None:
            remove_other_steps(folder, stages)
        cache = Cache(root=default_root() if use_cache else work / "cache")
        bench = Bench(
            source=given,
            runtimes=recipe.runtimes,
            threads=recipe.threads,
            prepared=prepared,
            workdir=work,
            cache=cache,
            progress=progress,
        )
        built = build_stages((first, *stages), bench)
        rows = _install(measure_stages(built, bench), built[-1], folder)
        records = [first.record, *(stage.record for stage in stages)]
        if recipe.packs and error is None:
            try:
                packed = pack_rows(rows, built[-1], len(records), folder, progress)
                records.append(_packing(records[-1], recipe, packed))
                rows += packed.rows
            except EdgewrightError as err:
                error = err
        summary = CompressionSummary(
            source=_source(given),
            steps=tuple(records),
            rows=tuple(rows),
            conditions=_conditions(recipe, prepared, material, teacher, built),
            commands=_commands(recipe, built[1:], folder),
            warnings=(*given.notes, *prepared.warnings, *warnings),
            failure="" if error is None else str(error),
        )
        _write(summary, folder)
        if use_cache:
            cache.prune()
    return CompressionResult(summary=summary, out=folder, error=error)


def _claim(out: Path, *, resume: bool) -> Path:
    begun = begun_steps(Path.cwd() / out)
    if begun and not resume:
        raise UsageError(
            f"output folder {out} holds steps of an earlier compression ({', '.join(begun)}). Go on with --resume, "
            "which keeps what is finished and still right, or choose another folder with --out."
        )
    return claim_output(out)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when this process ends, however it ends."""
    handle = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise UsageError(
                f"another compression works in {folder}. Wait for it, or choose another --out."
            ) from err
        yield
    finally:
        os.close(handle)


@contextmanager
def _import_path(folder: str) -> Iterator[None]:
    """Let `package.module` names be found in the recipe's folder, here and in workers, after everything else."""
    added = bool(folder) and folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _load(recipe: CompressionRecipe, workdir: Path) -> Program:
    return load(
        recipe.model,
        workdir=workdir,
        weights=Path(recipe.weights) if recipe.weights else None,
        input_shapes=recipe.input_shapes or None,
        signature=recipe.signature or None,
        trust=recipe.trust,
    )


def _with_metric(prepared: Prepared) -> Prepared:
    """Return `prepared` with a metric: without labels, the cosine of each sample's outputs with the original's.

    A row's parity is with its own step's model; alone it would look as if the step had lost nothing.
    """
    if prepared.metric is not None:
        return prepared
    warning = (
        "no labels: 'cosine' compares the outputs with those of the original; the accuracy is not measured"
    )
    return replace(prepared, metric=get_metric("cosine"), warnings=(*prepared.warnings, warning))


def _teacher(recipe: CompressionRecipe, original: Program, folder: Path) -> Program | None:
    if not recipe.teacher:
        return None
    shapes = recipe.input_shapes or tuple(map(_shape_text, original.inputs))
    given = load(
        recipe.teacher,
        workdir=folder / "teacher",
        weights=Path(recipe.teacher_weights) if recipe.teacher_weights else None,
        input_shapes=shapes if is_factory(recipe.teacher) else None,  # a file has its own
        trust=recipe.trust,
    )
    teacher = to_pt2(given, folder / "teacher" / "pt2", what="compression")
    for kind, own, wanted in (
        ("inputs", teacher.inputs, original.inputs),
        ("outputs", teacher.outputs, original.outputs),
    ):
        if len(own) != len(wanted) or not all(map(_fits, own, wanted)):
            raise FormatMismatchError(
                f"teacher {recipe.teacher} and model {recipe.model} differ in their {kind}: "
                f"{', '.join(map(str, own))} and {', '.join(map(str, wanted))}. A teacher takes the same samples and "
                "gives outputs of the same shape."
            )
    return teacher


def _shape_text(spec: TensorSpec) -> str:
    return f"{'x'.join('1' if size is None else str(size) for size in spec.shape)}:{spec.dtype}"


def _fits(a: TensorSpec, b: TensorSpec) -> bool:
    sizes = zip(a.shape, b.shape, strict=False)
    return len(a.shape) == len(b.shape) and all(x is None or y is None or x == y for x, y in sizes)


def _material(
    recipe: CompressionRecipe,
    given: Program,
    original: Program,
    teacher: Program | None,
    prepared: Prepared,
    work: Path,
) -> tuple[Material, list[str]]:
    """Return what the steps work with, its data written into `work`, and what the user should know of it."""
    warnings: list[str] = []
    train = read_for(given, recipe.train_data, values=recipe.values) if recipe.train_data else None
    if (
        train is not None
        and train.labels is None
        and not recipe.train
        and any(map(is_training, recipe.steps))
    ):
        raise DataError(
            f"train_data {recipe.train_data} has no labels, and the built-in training learns from them. Add an array "
            "'labels' with the class number of each sample, or give your own loop (train)."
        )
    own = read_for(given, recipe.calibration, values=recipe.values) if recipe.calibration else None
    if train is not None and train.sha256 == prepared.dataset.sha256:
        warnings.append("train_data and data are the same samples: the accuracy says nothing of new ones")
    chosen = own or train
    if chosen is None:
        chosen = prepared.dataset
        warnings.append(
            "no calibration and no train_data: passes that need samples took some of the evaluation set, so the "
            "accuracy of their steps may be too good"
        )
    sample = chosen.take(
        draw(chosen, recipe.calibration_count, seed=recipe.seed),
        description=f"seeded samples (seed {recipe.seed}) of {chosen.description}",
    )
    training = None
    if recipe.train or train is not None:
        training = {
            "train": recipe.train,
            "import_from": recipe.import_from,
            "data": None
            if train is None
            else hand_over(_laid_out(train, given, original), work / "training"),
        }
    calibration = hand_over(_laid_out(sample, given, original), work / "calibration")
    return Material(original=original, teacher=teacher, calibration=calibration, training=training), warnings


def _laid_out(dataset: Dataset, given: Program, original: Program) -> Dataset:
    """Return the samples in the layout of the `.pt2` program, which may not be that of the user's file."""
    pairs = list(zip(given.inputs, original.inputs, strict=True))
    if all(a.name == b.name and a.layout == b.layout for a, b in pairs):
        return dataset
    inputs = {b.name: to_layout(dataset.inputs[a.name], a.layout, b.layout) for a, b in pairs}
    return make_dataset(inputs, dataset.labels, description=dataset.description, lints=dataset.lints)


def _install(rows: Sequence[Row], last: Built, folder: Path) -> list[Row]:
    """Copy the last program's artifacts to `folder/artifacts`, and name them in its rows."""
    for stale in (folder / "artifacts").glob("*.ewz"):
        stale.unlink()
    own = [row for row in rows if row.step == last.stage.record.id]
    conversions = {last.targets[row.runtime].artifact_id: last.conversions[row.runtime] for row in own}
    installed = install_artifacts([row.result for row in own], conversions, folder)
    named = [replace(row, result=result) for row, result in zip(own, installed, strict=True)]
    return [*(row for row in rows if row.step != last.stage.record.id), *named]


def _packing(before: StepRecord, recipe: CompressionRecipe, packed: Packed) -> StepRecord:
    """Return the record of the step that packs: its model is the one before it."""
    step = recipe.steps[-1]
    return replace(
        before,
        number=len(recipe.steps),
        name=step.name,
        options=step.record(),
        seconds=0.0,
        state=StepState.DONE,
        facts={},
        tables=packed.tables,
        notes=("Packed losslessly: the download alone is smaller; every file came out byte by byte.",),
    )


def _source(program: Program) -> dict[str, object]:
    return {
        "path": program.origin,
        "format": program.origin_format,
        "sha256": program.sha256,
        "precision": program.precision,
        "inputs": [str(spec) for spec in program.inputs],
        "outputs": [str(spec) for spec in program.outputs],
    }


def _conditions(
    recipe: CompressionRecipe,
    prepared: Prepared,
    material: Material,
    teacher: Program | None,
    built: Sequence[Built],
) -> dict[str, object]:
    toolchain: dict[str, str] = {}
    for one in built:
        for conversion in one.conversions.values():
            if conversion.artifact is not None:
                toolchain.update(conversion.artifact.toolchain)
    data = None if material.training is None else material.training["data"]
    return {
        "host": describe_host(),
        "toolchain": dict(sorted(toolchain.items())),
        "data": prepared.dataset.description,
        "data_sha256": prepared.dataset.sha256,
        "calibration": str(material.calibration["description"]),
        "calibration_sha256": str(material.calibration["sha256"]),
        "train": recipe.train or ("built-in" if material.training is not None else "none"),
        "train_data": str(data["description"]) if isinstance(data, dict) else "none",
        "train_data_sha256": str(data["sha256"]) if isinstance(data, dict) else "none",
        "teacher": "the original" if teacher is None else recipe.teacher,
        "teacher_sha256": material.original.sha256 if teacher is None else teacher.sha256,
        "metric": prepared.metric.name if prepared.metric else "none",
        "seed": recipe.seed,
        "threads": recipe.threads,
        "timing": "one interleaved session per runtime, over all steps",
    }


def _commands(recipe: CompressionRecipe, built: Sequence[Built], folder: Path) -> dict[str, str]:
    """Return the command that builds each step's model for every runtime, relative to the working folder."""
    base = Path(os.path.relpath(folder))
    base = folder if ".." in base.parts else base
    commands = {}
    for one in built:
        name = one.stage.record.id
        words = [
            "edgewright",
            "build",
            str(base / one.stage.record.program),
            "--to",
            ",".join(recipe.runtimes),
        ]
        words += ["--precision", next(str(target.precision) for target in one.targets.values())]
        words += ["--data", recipe.data] if recipe.data else []
        samples = recipe.calibration or recipe.train_data
        words += ["--calibration", samples] if samples else []
        words += ["--out", str(base / "builds" / name)]
        commands[name] = shlex.join(words)
    return commands


def _write(summary: CompressionSummary, folder: Path) -> None:
    from edgewright.report.compression import write_report, write_results

    write_results(summary, folder)
    write_report(summary, folder / REPORT_NAME)
