"""Run the passes of a compression one after another, each in a worker, and keep every finished step.

A step is a folder `steps/01-prune`. `begun.json` says what decides its outcome (source, options, data, the step before,
versions) as one digest; while it holds, checkpoints in the folder may be used. `step.json` is written last: a
folder with it is complete, and its model is used again as long as the digest and the file are the same.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.compress.operations import CHECKPOINTS_NAME, PROGRESS_NAME
from edgewright.compression_recipe import CompressionRecipe, CompressionStep, is_training
from edgewright.core.compression import ORIGINAL, StepRecord, StepState, step_id
from edgewright.core.errors import (
    ConversionError,
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    UsageError,
)
from edgewright.core.files import read_json, sha256_of, write_json
from edgewright.core.options import options_record
from edgewright.core.program import Program
from edgewright.core.progress import Progress
from edgewright.core.target import Precision
from edgewright.workers.limits import limits_from_environment
from edgewright.workers.pool import Limits, Worker

STEPS_FOLDER = "steps"
_RUN = "edgewright.compress.operations:run_pass"
_COUNT = "edgewright.compress.operations:count"
_CHECK_TRAIN = "edgewright.compress.operations:check_train"
_BEGUN = "begun.json"
_DONE = "step.json"
# Training takes as long as it takes: a month is a guard against a hang, not a limit.
_LIMITS = Limits(timeout_s=30 * 24 * 3600.0, memory_bytes=16 << 30)
_POLL_S = 0.2
_NOTE_EVERY_S = 10.0
_PACKAGES = ("torch", "torchao", "torch-pruning", "edgewright")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A model of the chain: the original, or what a step made."""

    record: StepRecord
    program: Program


@dataclass(frozen=True, kw_only=True)
class Material:
    """What every step works with.

    Attributes:
        original: the source as `.pt2`; teacher: the same of the teacher, or None.
        calibration: a record of `data.handover`; training: "train", "import_from" and "data" of
            what `compress.operations.run_pass` takes, or None.
    """

    original: Program
    teacher: Program | None
    calibration: Mapping[str, object]
    training: Mapping[str, object] | None


def begun_steps(out: Path) -> list[str]:
    """Return the names of the step folders in `out`, of a compression that is complete or not."""
    folder = out / STEPS_FOLDER
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def original_stage(program: Program, given: Program, recipe: CompressionRecipe) -> Stage:
    """Return step 0: the source as `.pt2`, counted; `given` is the program as the user named it.

    Raises:
        TrainingError: the recipe's training function is not there, or cannot be called so.
        FormatMismatchError: a quantized source of another format, whose `.pt2` is float arithmetic that rounds.
    """
    with Worker("count", limits=limits_from_environment(Limits(timeout_s=1800.0))) as worker:
        if recipe.train:  # before any work: the step that needs it may come after days
            worker.call(_CHECK_TRAIN, {"train": recipe.train, "import_from": recipe.import_from})
        counts = worker.call(_COUNT, {"program": program.to_json()})
    if counts["precision"] == Precision.FP32 and program.precision != Precision.FP32:
        raise FormatMismatchError(
            f"{given.origin} is {given.precision} in the format {given.origin_format}. As .pt2, which the steps work "
            f"on, it is float arithmetic that rounds, and runtimes make no {given.precision} model of that. Compress "
            "the float model that it was made from, and quantize that (qat or repair)."
        )
    record = StepRecord(
        number=0,
        name=ORIGINAL,
        options={},
        program=given.origin,
        sha256=given.sha256,
        precision=given.precision,
        seconds=0.0,
        seed=recipe.seed,
        facts={},
        tables={},
        **_counts(counts),  # type: ignore[arg-type]
    )
    return Stage(record=record, program=program)


def run_steps(
    recipe: CompressionRecipe, original: Stage, material: Material, out: Path, progress: Progress
) -> tuple[list[Stage], EdgewrightError | None]:
    """Return the stage of each pass in order, and the error of the one that failed; those after it are not begun.

    Finished steps in `out` are used again where nothing that decides their outcome has changed; a step that an
    earlier run left unfinished goes on from its checkpoints.
    """
    stages: list[Stage] = []
    before = original
    for number, step in enumerate(recipe.passes, start=1):
        name = step_id(number, step.name)
        folder = out / STEPS_FOLDER / name
        key = _key(recipe, step, before, material)
        kept = _kept(folder, key)
        if kept is not None:
            progress(name, "compress", "cached")
            before = kept
            stages.append(kept)
            continue
        try:
            before = _run(recipe, number, step, before, material, folder, key, progress)
        except EdgewrightError as err:
            progress(name, "compress", "failed")
            return stages, _explained(err, name, [stage.record.id for stage in stages])
        stages.append(before)
        progress(name, "compress", "done")
    return stages, None


def remove_other_steps(out: Path, stages: Sequence[Stage]) -> None:
    """Delete the folders of steps that are no part of the chain any more, once the chain is complete."""
    wanted = {stage.record.id for stage in stages}
    for name in begun_steps(out):
        if name not in wanted:
            shutil.rmtree(out / STEPS_FOLDER / name, ignore_errors=True)


def _run(
    recipe: CompressionRecipe,
    number: int,
    step: CompressionStep,
    before: Stage,
    material: Material,
    folder: Path,
    key: str,
    progress: Progress,
) -> Stage:
    name = step_id(number, step.name)
    spent_s = _begin(folder, key)
    is_resumed = (folder / CHECKPOINTS_NAME).is_dir()
    seed = recipe.seed
    arguments: dict[str, object] = {
        "pass": step.name,
        "options": step.record(),
        "program": before.program.to_json(),
        "original": material.original.to_json(),
        "teacher": None if material.teacher is None else material.teacher.to_json(),
        "folder": str(folder),
        "calibration": dict(material.calibration),
        "training": _training(recipe, step, material),
        "seed": seed,
    }
    limits = replace(limits_from_environment(_LIMITS), timeout_s=_LIMITS.timeout_s)
    started_s = noted_s = time.monotonic()
    progress(name, "starting", "running")

    def note(line: str) -> None:
        nonlocal noted_s
        progress(name, line, "running")
        now_s = time.monotonic()
        if now_s - noted_s > _NOTE_EVERY_S:
            noted_s = now_s
            _note_time(folder, key, spent_s + now_s - started_s)

    with Worker(name, limits=limits, env=_patient()) as worker:
        answer = _call(worker, arguments, folder / PROGRESS_NAME, note)
    record = answer["program"]
    assert isinstance(record, dict)
    program = Program.from_json(record)
    facts, tables, notes = answer["facts"], answer["tables"], answer["notes"]
    assert isinstance(facts, dict)
    assert isinstance(tables, dict)
    assert isinstance(notes, list)
    made = StepRecord(
        number=number,
        name=step.name,
        options=step.record(),
        program=f"{STEPS_FOLDER}/{name}/{program.path.relative_to(folder)}",
        sha256=program.sha256,
        precision=program.precision,
        seconds=spent_s + time.monotonic() - started_s,
        seed=seed,
        state=StepState.RESUMED if is_resumed else StepState.DONE,
        facts=facts,
        tables=tables,
        notes=tuple(str(text) for text in notes),
        **_counts(answer),  # type: ignore[arg-type]
    )
    stage = Stage(record=made, program=program)
    _finish(folder, key, stage)
    return stage


def _patient() -> dict[str, str]:
    """Return the environment of a worker that trains: its OpenMP threads sleep while they wait.

    Threads that spin stall each other wherever other work shares the cores: epochs took ten times as long.
    """
    return {} if "OMP_WAIT_POLICY" in os.environ else {"OMP_WAIT_POLICY": "passive"}


def _training(
    recipe: CompressionRecipe, step: CompressionStep, material: Material
) -> dict[str, object] | None:
    if material.training is None or not is_training(
        step
    ):  # samples for a step that does not train need no labels
        return None
    options = {} if recipe.train else options_record(recipe.training_options(step))
    return {**material.training, "options": options}


def _call(
    worker: Worker, arguments: Mapping[str, object], progress_file: Path, note: Callable[[str], None]
) -> dict[str, object]:
    """Run the pass in `worker` and tell meanwhile what it writes to `progress_file`; an interrupt ends it."""
    reader = ProgressReader()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgewright-pass") as pool:
        answer: Future[dict[str, object]] = pool.submit(worker.call, _RUN, arguments)
        try:
            told = ""
            while not wait([answer], timeout=_POLL_S).done:
                line = reader.line(progress_file)
                if line and line != told:
                    note(line)
                    told = line
            return answer.result()
        except BaseException:
            worker.close()
            raise


class ProgressReader:
    """Reads what a pass says, and adds the share that is done and the time that is left at its pace."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def line(self, file: Path) -> str:
        """Return the line to show, or nothing where the pass has said nothing in this run."""
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            text, share = str(record["line"]), record["share"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        if not isinstance(share, float):
            return text
        now_s = time.monotonic()
        if self._first is None or share < self._first[1]:
            self._first = (now_s, share)
        since_s, gained = now_s - self._first[0], share - self._first[1]
        is_known = (
            gained > 0.01 and since_s > 2 and not text.endswith(" left")
        )  # the built-in training says it itself
        left = f", {_duration(since_s / gained * (1 - share))} left" if is_known else ""
        return f"{100 * share:.0f} %{left}  {text}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _key(recipe: CompressionRecipe, step: CompressionStep, before: Stage, material: Material) -> str:
    """Return the digest of everything that decides what `step` makes.

    The user's training function counts by its name: one that was mended after a crash goes on with what is there.
    """
    training: dict[str, object] = {}
    if material.training is not None and is_training(step):
        data = material.training["data"]
        training = {
            "train": recipe.train,
            "data": data["sha256"] if isinstance(data, dict) else None,
            "options": {} if recipe.train else options_record(recipe.training_options(step)),
        }
    parts = {
        "pass": step.name,
        "options": step.record(),
        "before": before.program.sha256,
        "original": material.original.sha256,
        "teacher": None if material.teacher is None else material.teacher.sha256,
        "calibration": material.calibration["sha256"],
        "training": training,
        "seed": recipe.seed,
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _begin(folder: Path, key: str) -> float:
    """Make the step's folder ready; return the seconds that earlier runs spent on it.

    What another digest left behind there is deleted: it would give another result.
    """
    spent_s = 0.0
    if folder.exists():
        begun = _read(folder / _BEGUN)
        seconds = begun.get("seconds", 0.0)
        if begun.get("key") == key and isinstance(seconds, float):
            spent_s = seconds
        else:
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in (
        folder / _DONE,
        folder / PROGRESS_NAME,
        *folder.rglob(".*.part"),
    ):  # a kill leaves parts of files
        left.unlink(missing_ok=True)
    _note_time(folder, key, spent_s)
    return spent_s


def _parts_in(folder: Path) -> list[Path]:
    """Return the parts of files that a kill left behind."""
    return [path for path in folder.rglob(".*") if path.suffix in (".part", ".pt2")]


def _note_time(folder: Path, key: str, seconds: float) -> None:
    write_json(folder / _BEGUN, {"key": key, "seconds": seconds})


def _finish(folder: Path, key: str, stage: Stage) -> None:
    """Write `step.json`, which makes the step complete, then drop what only an unfinished step needs."""
    path = stage.program.path
    record = {
        "key": key,
        "file": str(path.relative_to(folder)),
        "file_sha256": sha256_of(path),
        "program": stage.program.to_json() | {"path": str(path.relative_to(folder))},
        "step": stage.record.to_json(),
    }
    write_json(folder / _DONE, record)
    (folder / PROGRESS_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS_NAME, ignore_errors=True)


def _kept(folder: Path, key: str) -> Stage | None:
    """Return the finished step in `folder`, or None where there is none, or one that is no longer right."""
    found = _read(folder / _DONE)
    if found.get("key") != key:
        return None
    try:
        file = folder / str(found["file"])
        if folder.resolve() not in file.resolve().parents or sha256_of(file) != found["file_sha256"]:
            return None
        program, step = found["program"], found["step"]
        assert isinstance(program, dict)
        assert isinstance(step, dict)
        record = replace(StepRecord.from_json(step), state=StepState.KEPT)
        return Stage(record=record, program=Program.from_json(program | {"path": str(file)}))
    except (OSError, KeyError, ValueError, AssertionError):
        return None


def _read(path: Path) -> dict[str, object]:
    """Return the JSON object at `path`; an empty one where there is none that is whole."""
    try:
        return read_json(path)
    except IntegrityError:
        return {}


def _counts(record: Mapping[str, object]) -> dict[str, object]:
    return {name: record[name] for name in ("parameters", "macs", "sparsity")}


def _explained(err: EdgewrightError, name: str, finished: Sequence[str]) -> EdgewrightError:
    """Return `err` with what is kept, and how to go on."""
    done = f"Finished and kept: {', '.join(finished)}. " if finished else ""
    advice = (
        "Mend that and go on with --resume: finished steps and the last good checkpoint stay."
        if isinstance(err, UsageError | ConversionError)
        else "Go on with --resume: finished steps and the last good checkpoint stay."
    )
    return type(err)(f"step {name} failed: {err}\n{done}{advice}")
