"""Artifacts on disk: with the record that a build wrote beside them, or as bare files from elsewhere."""

from __future__ import annotations

from pathlib import Path

from edgewright.core.artifact import PACKAGE_SUFFIX, Artifact, Proof
from edgewright.core.errors import FormatMismatchError, IntegrityError, UnavailableError, UsageError
from edgewright.core.files import read_json, require_model_file, sha256_of_files, work_folder
from edgewright.core.target import Precision, Target
from edgewright.sources import load
from edgewright.workers.pool import call_once

RECORD_NAME = "artifact.json"
_RUNTIMES = {".tflite": "litert", ".onnx": "onnxruntime", ".xml": "openvino"}


def read_artifact(path: Path, *, threads: int | None = None) -> Artifact:
    """Return the artifact at `path`: a model file, or the folder that a build or `convert` wrote.

    With an `artifact.json` beside it the digest is checked. A bare `.tflite`, `.onnx` or OpenVINO `.xml` is
    taken as it is, its signature read from the file.

    Raises:
        UsageError: nothing there, or a file of another kind.
        IntegrityError: the file is not the one that the record describes.
    """
    is_folder = path.is_dir() and path.suffix != PACKAGE_SUFFIX
    folder = path if is_folder else path.parent
    record_path = folder / RECORD_NAME
    if is_folder and not record_path.is_file():
        raise UsageError(
            f"{path} holds no {RECORD_NAME}: it is not a folder that a build wrote. Name the model file."
        )
    if record_path.is_file():
        artifact = _recorded(record_path)
        if is_folder or path.name == Path(artifact.names[0]).parts[0]:
            artifact.verify_digest()
            return _with_threads(artifact, threads)
    return _with_threads(_bare(path), threads)


def require_runnable(artifact: Artifact, *, is_timed: bool = False) -> None:
    """Check that something here runs `artifact`; with `is_timed`, its own runtime.

    Raises:
        UnavailableError: nothing does; the artifact's notes say where it would.
    """
    if artifact.proof is Proof.RUN or (artifact.proof is Proof.INTERPRETED and not is_timed):
        return
    why = {
        Proof.INTERPRETED: "is run by Edgewright's interpreter here, whose time says nothing of the runtime",
        Proof.CONVERTED: "is complete, but nothing here runs it",
        Proof.RECIPE: "is still to be built on another machine",
    }[artifact.proof]
    notes = () if artifact.proof is Proof.INTERPRETED else artifact.notes
    raise UnavailableError("; ".join((f"{artifact.shown_path} {why}", *notes)) + ".")


def _recorded(record_path: Path) -> Artifact:
    record = read_json(record_path)
    try:
        artifact = Artifact.from_json(record)
    except (AssertionError, KeyError, ValueError, TypeError) as err:
        raise IntegrityError(
            f"{record_path} is not the record of an artifact: {err!r}. Build it again."
        ) from err
    folder = record_path.parent
    names = [str(file) for file in artifact.files]
    if not names or any(file.is_absolute() or ".." in file.parts for file in artifact.files):
        raise IntegrityError(f"{record_path} names files outside its folder. Build it again.")
    return artifact.moved(tuple(folder / name for name in names))


def _bare(path: Path) -> Artifact:
    require_model_file(path)
    runtime = _RUNTIMES.get(path.suffix.lower())
    if runtime is None:
        raise FormatMismatchError(
            f"{path} is no artifact that can be run: expected {', '.join(_RUNTIMES)}, or a folder with {RECORD_NAME}."
        )
    if runtime == "openvino":
        weights = path.with_suffix(".bin")
        require_model_file(weights)
        answer = call_once("edgewright.backends.openvino:signature", {"path": str(path.resolve())})
        record = {
            "files": [str(path), str(weights)],
            "target": Target(runtime=runtime).to_json(),
            "inputs": answer["inputs"],
            "outputs": answer["outputs"],
            "sha256": sha256_of_files((path, weights)),
            "source_sha256": "",
            "toolchain": {},
            "notes": [],
        }
        return Artifact.from_json(record)
    with work_folder() as work:
        program = load(str(path), workdir=work)
    files = (path, *_data_files(path)) if runtime == "onnxruntime" else (path,)
    return Artifact(
        files=files,
        target=Target(runtime=runtime, precision=_precision(program.precision)),
        inputs=program.inputs,
        outputs=program.outputs,
        sha256=sha256_of_files(files),
        source_sha256="",
    )


def _data_files(path: Path) -> list[Path]:
    """Return the files beside an ONNX model that hold its weights; none where it holds them itself."""
    from edgewright.sources.onnx import external_files, parse_onnx

    folder = path.resolve().parent
    return [path.parent / file.relative_to(folder) for file in external_files(parse_onnx(path), path)]


def _precision(text: str) -> Precision:
    """Return the precision whose tolerances fit a file of precision `text`; a file may use more than we make."""
    if text in list(Precision):
        return Precision(text)
    return Precision.W8A8 if "a8" in text or "a16" in text else Precision.W8


def _with_threads(artifact: Artifact, threads: int | None) -> Artifact:
    from dataclasses import replace

    if threads is None:
        return artifact
    return replace(artifact, target=replace(artifact.target, threads=threads))
