"""One artifact at a time: describe, convert, verify, run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgewright.artifact_files import RECORD_NAME, read_artifact, require_runnable
from edgewright.backends.conversion import Conversion, convert_all
from edgewright.core.artifact import PACKAGE_SUFFIX, Artifact
from edgewright.core.budget import Budget
from edgewright.core.errors import DataError, FormatMismatchError, UnknownNameError
from edgewright.core.files import work_folder, write_aside
from edgewright.core.progress import Progress, silent
from edgewright.core.result import Result, exit_code_of
from edgewright.core.target import Precision
from edgewright.core.tensors import Array, TensorSpec, check_arrays
from edgewright.data.images import read_image_for
from edgewright.data.preparation import prepare
from edgewright.ewz import SUFFIX, unpack
from edgewright.measure.evaluation import evaluate_all
from edgewright.measure.judgement import judge_all
from edgewright.pipeline import load_source, plan_processing
from edgewright.processing.nms import Nms
from edgewright.processing.specification import PROCESSING_NAME, read_specification
from edgewright.recipe import Recipe
from edgewright.sources import Inspection, inspect, inspect_artifact, load
from edgewright.sources.detect import is_factory
from edgewright.sources.load import inspector_of
from edgewright.workers.cache import Cache, default_root
from edgewright.workers.pool import Worker
from edgewright.workspace import claim_output, install_artifacts

_MAX_NAMED_FILES = 8


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One artifact compared with its source; `artifact` is None when there is none.

    Attributes:
        source_notes: what became of the source before it was converted, such as what was folded into it.
    """

    result: Result
    artifact: Artifact | None
    source_notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 for ok, else the code of the status: failed 4 (7 when the worker failed), degraded 5, unavailable 3."""
        return exit_code_of((self.result,))

    def to_json(self) -> dict[str, object]:
        """Return the row as in results.json, with the artifact's record."""
        return self.result.to_json() | {
            "artifact_record": None if self.artifact is None else self.artifact.to_json(),
            "source_notes": list(self.source_notes),
        }


def describe(
    model: str,
    *,
    weights: Path | None = None,
    input_shapes: Sequence[str] = (),
    signature: str | None = None,
) -> Inspection:
    """Return what a source or an artifact holds, without running it; see `sources.load`.

    Args:
        model: as of `load`, or an artifact: its file, or the folder that a build wrote.
    Raises:
        UsageError, FormatMismatchError, UnavailableError, ConversionError: as of `load`.
        IntegrityError: the file is broken, or not what its record says.
    """
    if Path(model).suffix == SUFFIX and Path(model).is_file():
        return _describe_packed(Path(model))
    if (Path(model) / RECORD_NAME).is_file():
        model = str(read_artifact(Path(model)).shown_path)
    if not is_factory(model) and inspector_of(Path(model), has_shapes=bool(input_shapes)):
        return inspect_artifact(Path(model))
    with work_folder() as work:
        program = load(
            model,
            workdir=work,
            weights=weights,
            input_shapes=input_shapes or None,
            signature=signature,
            to_describe=True,
        )
        return inspect(program)


def _describe_packed(path: Path) -> Inspection:
    """Return what the artifact in the `.ewz` at `path` holds, with its download size in the notes."""
    with work_folder() as work:
        report = unpack(path, work)
        sizes = f"packed: download {report.packed_bytes:,} bytes, disk {report.source_bytes:,} bytes in"
        note = f"{sizes} {', '.join(str(file.relative_to(work)) for file in report.files[:_MAX_NAMED_FILES])}"
        # The file to open comes last of the names of an artifact of two: model.bin, model.xml.
        records = [file.parent for file in report.files if file.name == RECORD_NAME]
        packages = [
            parent for file in report.files for parent in file.parents if parent.suffix == PACKAGE_SUFFIX
        ]
        found = describe(str([report.files[-1], *packages[:1], *records[:1]][-1]))
    return replace(found, name=path.name, size_bytes=report.source_bytes, notes=(note, *found.notes))


def convert(
    recipe: Recipe, *, out: Path, use_cache: bool = True, progress: Progress = silent
) -> Verification:
    """Convert for the one target of `recipe`, verify it against the source, and write it to `out`.

    Raises:
        UsageError: the recipe has more than one target.
    """
    targets = recipe.targets()
    if len(targets) != 1:
        raise DataError(f"convert takes one target, but the recipe has {len(targets)}. Use build.")
    folder = claim_output(out)
    cache = Cache(root=default_root() if use_cache else None)
    with work_folder() as work:
        program = load_source(recipe, work / "source", layout=targets[0].layout)
        program, processing = plan_processing(recipe, program, work / "source")
        prepared = prepare(replace(recipe.data_request(), processing=processing), program, work)
        conversions = convert_all(
            program, targets, prepared.calibration, workdir=work, cache=cache, progress=progress
        )
        measured = evaluate_all(
            program, targets, conversions, prepared, workdir=work, cache=cache, progress=progress, timing=None
        )
        results = judge_all(targets, conversions, measured, prepared, Budget())
        results = install_artifacts(results, conversions, folder, processing)
    artifact = conversions[targets[0].artifact_id].artifact
    where = folder / "artifacts" / targets[0].artifact_id
    installed = None if artifact is None else artifact.moved(tuple(where / name for name in artifact.names))
    return Verification(result=results[0], artifact=installed, source_notes=program.notes)


def verify(
    artifact_path: Path, recipe: Recipe, *, precision: str = "", threads: int = 1, progress: Progress = silent
) -> Verification:
    """Run the artifact and the source `recipe.model` on the same samples and compare.

    Args:
        precision: whose tolerances apply; default: what the record or the file says.
    Raises:
        FormatMismatchError: the signatures do not match.
        IntegrityError: the artifact is not the one that its record describes.
    """
    artifact = read_artifact(artifact_path, threads=threads)
    require_runnable(artifact)
    if precision:
        target = replace(artifact.target, precision=Precision.parse(precision))
        artifact = replace(artifact, target=target)
    with work_folder() as work:
        program = load_source(recipe, work / "source", layout=artifact.target.layout)
        program, processing = plan_processing(
            recipe, program, work / "source", has_boxes_inside=_has_boxes_inside(artifact_path)
        )
        for kind, own, source in (
            ("inputs", artifact.inputs, program.inputs),
            ("outputs", artifact.outputs, program.outputs),
        ):
            if len(own) != len(source):
                raise FormatMismatchError(
                    f"{artifact_path} has {len(own)} {kind} ({', '.join(map(str, own))}), but {recipe.model} has "
                    f"{len(source)} ({', '.join(map(str, source))}): it was not made from this model."
                )
        prepared = prepare(replace(recipe.data_request(), processing=processing), program, work)
        conversions = {artifact.target.artifact_id: Conversion(artifact=artifact)}
        measured = evaluate_all(
            program,
            (artifact.target,),
            conversions,
            prepared,
            workdir=work,
            cache=Cache(root=None),
            progress=progress,
            timing=None,
        )
        result = judge_all((artifact.target,), conversions, measured, prepared, Budget())[0]
    return Verification(result=result, artifact=artifact)


def _has_boxes_inside(artifact_path: Path) -> bool | None:
    """Return whether the processing beside a folded artifact was left without suppression; None where there is none."""
    folder = artifact_path if artifact_path.is_dir() else artifact_path.parent
    if not (folder / PROCESSING_NAME).is_file():
        return None
    flows = read_specification(folder).flows()
    return not any(step.name == Nms.name for flow in flows for step in flow.steps)


def run(artifact_path: Path, inputs: Mapping[str, Array] | Array, *, threads: int = 1) -> dict[str, Array]:
    """Run the artifact once in its runtime, in a worker, and return its outputs by name.

    Args:
        inputs: arrays by input name, batch axis included; or the array of the only input.
    Raises:
        DataError: names, shapes or dtypes do not fit.
    """
    artifact = read_artifact(artifact_path, threads=threads)
    require_runnable(artifact)
    arrays = dict(inputs) if isinstance(inputs, Mapping) else _single(inputs, artifact)
    check_arrays(arrays, artifact.inputs, what=f"input of {artifact_path}")
    with work_folder() as work:
        paths = {}
        for index, (key, array) in enumerate(arrays.items()):
            np.save(work / f"{index}.npy", array, allow_pickle=False)
            paths[key] = str(work / f"{index}.npy")
        with Worker("run", environment=artifact.environment) as worker:
            answer = worker.call(
                "edgewright.measure.operations:run_once",
                {"artifact": artifact.to_json(), "inputs": paths, "out": str(work / "out")},
            )
        files = answer["outputs"]
        assert isinstance(files, dict)
        return {str(key): np.load(str(path), allow_pickle=False) for key, path in files.items()}


def read_inputs(artifact_path: Path, texts: Sequence[str]) -> dict[str, Array] | Array:
    """Return the arrays of `FILE` or `NAME=FILE` texts: .npy as it is, an image resized for the input it is for.

    Raises:
        DataError: a file that is missing or neither, or names that do not fit.
    """
    artifact = read_artifact(artifact_path)
    arrays: dict[str, Array] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals:
            name, file = "", text
        spec = next((s for s in artifact.inputs if s.name == name), None)
        if spec is None and name:
            raise UnknownNameError.of("input", name, [s.name for s in artifact.inputs])
        if spec is None and (len(artifact.inputs) != 1 or len(texts) != 1):
            names = ", ".join(s.name for s in artifact.inputs)
            raise DataError(f"{artifact_path} has the inputs {names}. Give each once as --input NAME=FILE.")
        spec = spec or artifact.inputs[0]
        arrays[spec.name] = _read_input(Path(file), spec)
    return arrays


def _read_input(path: Path, spec: TensorSpec) -> Array:
    if not path.is_file():
        raise DataError(f"input file {path} does not exist. Check the path.")
    if path.suffix.lower() != ".npy":
        return read_image_for(path, spec)
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise DataError(f"{path} cannot be read as an .npy array of numbers: {err}.") from err
    return array


def _single(array: Array, artifact: Artifact) -> dict[str, Array]:
    if len(artifact.inputs) != 1:
        names = ", ".join(spec.name for spec in artifact.inputs)
        raise DataError(
            f"{artifact.shown_path} has {len(artifact.inputs)} inputs ({names}). Give one as NAME=FILE each."
        )
    return {artifact.inputs[0].name: array}


def save_output(outputs: Mapping[str, Array], path: Path) -> Sequence[str]:
    """Write one output to `path` as .npy, or several to `path` as .npz; return their names."""
    with write_aside(path) as aside, aside.open("wb") as stream:
        if len(outputs) == 1:
            np.save(stream, next(iter(outputs.values())), allow_pickle=False)
        else:
            np.savez(stream, **outputs)  # type: ignore[arg-type]
    return tuple(outputs)
