"""A model with its processing: raw inputs in, typed results out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from edgewright.artifact_files import RECORD_NAME, read_artifact, require_runnable
from edgewright.bundle_files import is_bundle, open_bundle
from edgewright.core.artifact import Artifact
from edgewright.core.errors import DataError, FormatMismatchError, UsageError
from edgewright.core.files import work_folder
from edgewright.core.tensors import Array, TensorSpec
from edgewright.processing import presets
from edgewright.processing.choice import choose, read_named
from edgewright.processing.notes import raw_notes
from edgewright.processing.processor import Plan, Raw, Signature, plan
from edgewright.processing.raw import RAW_SUFFIXES, read_raw
from edgewright.processing.results import Result, Runs, spans_of, typed_result
from edgewright.processing.smoothing import Threshold
from edgewright.processing.specification import (
    PROCESSING_NAME,
    RawInput,
    Specification,
    read_labels,
    read_specification,
    write_specification,
)
from edgewright.processing.streaming import joined_types, stream_input
from edgewright.workers.pool import Worker

RawSource = Path | str | Array
ARTIFACT_SUFFIXES = frozenset((".tflite", ".onnx", ".xml"))
_MAX_FILES = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The results of one run, by name, and the raw inputs that they were made of.

    Attributes:
        notes: what is strange about the inputs, as sentences: sound that is silent, clipped, or
            much longer than what is used of it.
    """

    results: Mapping[str, Result]
    raw: Mapping[str, Raw]
    source: str = ""
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Result:
        return self.results[name]

    def to_json(self) -> dict[str, object]:
        """Return the results as JSON values."""
        record: dict[str, object] = {"input": self.source} if self.source else {}
        if self.notes:
            record["notes"] = list(self.notes)
        return record | {name: result.to_json() for name, result in self.results.items()}


class Predictor:
    """Runs a specification around its models, which stay open in a worker; a context manager.

    Called with what the specification takes, by position or by name: the path of an image or of a WAV, or arrays.
    """

    def __init__(self, checked: Plan, artifacts: Mapping[str, Artifact]) -> None:
        """Open a predictor for a checked plan; `load` finds plan and artifacts by itself.

        Args:
            checked: the processing.
            artifacts: name of each model -> what is run.
        Raises:
            UsageError: the models need environments that differ.
        """
        self.plan = checked
        self.artifacts = dict(artifacts)
        environments = {artifact.environment for artifact in artifacts.values()}
        if len(environments) != 1:
            raise UsageError(
                f"the models run in {len(environments)} toolchain environments; one is expected."
            )
        for artifact in artifacts.values():
            require_runnable(artifact)
        self._folder = Path(tempfile.mkdtemp(prefix="edgewright-"))
        try:
            self._specification = write_specification(checked.specification, self._folder)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._shapes: dict[str, dict[str, list[int]]] = {}
        self._worker = Worker("predict", environment=environments.pop())

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and remove its files."""
        self._worker.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def specification(self) -> Specification:
        """What is run."""
        return self.plan.specification

    def __call__(
        self, *inputs: RawSource, source: str = "", named: Mapping[str, RawSource] | None = None
    ) -> Prediction:
        """Return the results for one set of raw inputs.

        Args:
            inputs: in the order of the specification's inputs.
            source: how the prediction names it; default: the path of the first input that is one.
            named: the same by name.
        Raises:
            DataError: an input that is missing, cannot be read, or is not what the specification takes.
        """
        given = dict(zip((row.name for row in self.specification.inputs), inputs, strict=False)) | dict(
            named or {}
        )
        if len(inputs) > len(self.specification.inputs):
            raise DataError(
                f"{len(inputs)} inputs are given, but the specification takes {len(self.specification.inputs)}."
            )
        raw = self.read(given)
        arrays = self.arrays(raw)
        paths = [str(value) for value in given.values() if isinstance(value, str | Path)]
        notes = raw_notes(self.specification, raw)
        return Prediction(
            results=self._typed(arrays), raw=raw, source=source or next(iter(paths), ""), notes=notes
        )

    def read(self, given: Mapping[str, RawSource]) -> dict[str, Raw]:
        """Return the raw inputs, by name, of files or arrays; what is not given is left out.

        Raises:
            DataError: a file that cannot be read, or is not what the input takes.
        """
        return {
            row.name: _raw(row, given[row.name]) for row in self.specification.inputs if row.name in given
        }

    def arrays(
        self, raw: Mapping[str, Raw], *, is_joined: bool = True, outputs: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return the arrays of the results of one set of raw inputs, by name.

        Args:
            is_joined: of a stream, join what its runs gave; else stack it, [runs, ...], as each run gave it.
            outputs: gets what the models gave, [runs, ...], under TENSOR or MODEL.TENSOR.
        Raises:
            DataError: an input that is missing, or is not what the specification takes.
        """
        with work_folder() as work:
            answer = self._worker.call(
                "edgewright.processing.operations:predict",
                {
                    "specification": str(self._specification),
                    "artifacts": {name: artifact.to_json() for name, artifact in self.artifacts.items()},
                    "raw": {name: _hand_over(value, work / f"{name}.npy") for name, value in raw.items()},
                    "is_joined": is_joined,
                    "is_recording": outputs is not None,
                    "out": str(work / "out"),
                },
            )
            files, shapes = answer["results"], answer["shapes"]
            assert isinstance(files, dict) and isinstance(shapes, dict)
            self._shapes = shapes
            if outputs is not None:
                outputs |= _recorded(answer["outputs"])
            return {str(name): np.load(str(path), allow_pickle=False) for name, path in files.items()}

    def static_plan(self) -> Plan:
        """Return the plan with the sizes that the last run had in place of those that the models leave open.

        Raises:
            UsageError: nothing ran yet, or the sizes do not fit the specification.
        """
        if not self._shapes:
            raise UsageError("the sizes of a model are known after a first run. Give it an input.")
        signatures = {
            name: Signature(
                inputs=tuple(_sized(spec, self._shapes[name]) for spec in signature.inputs),
                outputs=tuple(_sized(spec, self._shapes[name]) for spec in signature.outputs),
            )
            for name, signature in self.plan.signatures.items()
        }
        return plan(self.specification, signatures)

    def _typed(self, arrays: Mapping[str, Array]) -> dict[str, Result]:
        row = stream_input(self.plan)
        joined = joined_types(self.plan) if row else {}
        made: dict[str, Result] = {}
        for flow in self.specification.results:
            array, kind, labels = arrays[flow.name], self.plan.results[flow.name], flow.labels
            run_s = row.samples / row.rate_hz if row and row.rate_hz else 0.0
            if run_s and flow.steps and isinstance(flow.steps[-1], Threshold):
                made[flow.name] = spans_of(array, run_s, labels)
            elif row and kind.kind not in ("audio", "codes", "tensor"):
                runs = tuple(typed_result(one, kind, labels) for one in array)
                made[flow.name] = runs[0] if len(runs) == 1 else Runs(runs=runs, run_s=run_s)
            else:
                made[flow.name] = typed_result(array, joined.get(flow.name, kind), labels)
        return made


def load(
    path: Path | str | Sequence[Path],
    *,
    processing: Specification | Path | str | None = None,
    labels: Path | None = None,
    threads: int = 1,
) -> Predictor:
    """Return a predictor for the model at `path`: `predictor("cat.jpg")` gives typed results.

    Args:
        path: an artifact (its file, or the folder that a build wrote), the folder of a bundle, or a folder that holds a
            `processing.toml` and the models that it names; several files, or a folder of them, for a preset of several.
        processing: a specification, its file, or the name of a preset; default: the `processing.toml` beside the
            model, else what the file says of itself in its metadata.
        labels: a file with a label a line, over those of the specification.
    Raises:
        UsageError: no processing is known, or it does not fit the model.
        IntegrityError: a file of the bundle changed.
        UnavailableError: nothing here runs the model.
    """
    checked, artifacts = _specify(path, processing, labels, threads)
    return Predictor(checked, artifacts)


def specify(
    path: Path | str | Sequence[Path],
    *,
    processing: Specification | Path | str | None = None,
    labels: Path | None = None,
) -> Plan:
    """Return the processing of the model at `path`, checked against its signature; see `load`."""
    return _specify(path, processing, labels, threads=1)[0]


def find_inputs(specification: Specification, texts: Sequence[str]) -> list[dict[str, str]]:
    """Return, for each prediction, name of the input -> file, of texts `FILE`, `FOLDER` or `NAME=FILE`.

    Raises:
        DataError: a file or a name that is not there, an empty folder, or inputs that are not given.
    """
    names = [row.name for row in specification.inputs]
    named = dict(
        text.partition("=")[::2] for text in texts if text.partition("=")[0] in names and "=" in text
    )
    if named:
        missing = [name for name in names if name not in named]
        if missing or len(named) != len(texts):
            raise DataError(
                f"the inputs {names} are expected, each once as NAME=FILE, but {list(texts)} are given."
            )
        return [named]
    if len(names) != 1:
        raise DataError(f"the specification takes the inputs {names}. Give each as NAME=FILE.")
    row = specification.inputs[0]
    if row.kind == "text":
        return [{row.name: text} for text in texts]
    files: list[str] = []
    for text in texts:
        place = Path(text)
        if not place.exists():
            raise DataError(f"input {text} does not exist. Check the path.")
        if not place.is_dir():
            files.append(text)
            continue
        found = sorted(file for file in place.rglob("*") if file.suffix.lower() in RAW_SUFFIXES[row.kind])
        if not found:
            raise DataError(f"folder {text} holds no {', '.join(sorted(RAW_SUFFIXES[row.kind]))} file.")
        if len(found) > _MAX_FILES:
            raise DataError(
                f"folder {text} holds {len(found)} files; at most {_MAX_FILES} are taken at once."
            )
        files += map(str, found)
    return [{row.name: file} for file in files]


def _specify(
    path: Path | str | Sequence[Path],
    processing: Specification | Path | str | None,
    labels: Path | None,
    threads: int,
) -> tuple[Plan, dict[str, Artifact]]:
    path, shipped = _unpacked(path)
    places = _places(path)
    folder = places[0] if places[0].is_dir() else places[0].parent
    specification = processing if isinstance(processing, Specification) else None
    if processing is not None and specification is None and str(processing) not in presets.names():
        specification = read_named(str(processing))
    if processing is None and (folder / PROCESSING_NAME).is_file():
        specification = read_specification(folder)
    if shipped:
        artifacts = {name: _with_threads(artifact, threads) for name, artifact in shipped.items()}
    elif specification is not None and specification.models:
        artifacts = {row.name: _artifact(folder / row.file, threads) for row in specification.models}
    elif len(places) > 1 or _holds_models(places[0]):
        files = places if len(places) > 1 else _models_in(places[0])
        artifacts = {place.stem: _artifact(place, threads) for place in files}
    else:
        artifacts = {"": _artifact(places[0], threads)}
    signatures = {
        name: Signature(inputs=artifact.inputs, outputs=artifact.outputs)
        for name, artifact in artifacts.items()
    }
    if specification is None:
        models = {name: artifact.path for name, artifact in artifacts.items()}
        specification = choose(str(processing or ""), models, signatures)
    # Of a preset, or made in Python: the files that its steps name lie by the model.
    specification = replace(specification, folder=specification.folder or folder)
    if labels is not None:
        names = read_labels(labels)
        results = tuple(
            replace(flow, labels=names, labels_file=labels.name) for flow in specification.results
        )
        specification = replace(specification, results=results)
    return plan(specification, signatures), artifacts


def _unpacked(
    path: Path | str | Sequence[Path],
) -> tuple[Path | str | Sequence[Path], Mapping[str, Artifact]]:
    """Return the folder of a bundle's processing, and its models; what is no bundle as it is.

    Raises:
        IntegrityError: one of their files is not that of the manifest.
    """
    if (
        not isinstance(path, str | Path)
        or not is_bundle(Path(path))
        or (Path(path) / PROCESSING_NAME).is_file()
    ):
        return path, {}
    found = open_bundle(Path(path))
    return found.processing, found.artifacts


def _holds_models(place: Path) -> bool:
    """Return whether `place` is a folder of several model files, and none that a build wrote."""
    return place.is_dir() and not (place / RECORD_NAME).is_file() and len(_models_in(place)) > 1


def _models_in(folder: Path) -> list[Path]:
    """Return the model files in `folder`, by name.

    Raises:
        UsageError: two differ in their suffix only, so that their names are the same.
    """
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in ARTIFACT_SUFFIXES)
    if len({file.stem for file in found}) < len(found):
        raise UsageError(
            f"folder {folder} holds {', '.join(file.name for file in found)}: models are called by their names without "
            "suffix, which must differ. Keep one format."
        )
    return found


def _places(path: Path | str | Sequence[Path]) -> list[Path]:
    """Return the paths that are meant: of a folder that `build` or `convert` wrote, its only artifact.

    Raises:
        UsageError: it holds several artifacts.
    """
    if not isinstance(path, str | Path):
        return list(path)
    place = Path(path)
    inner = place / "artifacts"
    if not inner.is_dir() or (place / PROCESSING_NAME).is_file():
        return [place]
    found = sorted(folder for folder in inner.iterdir() if (folder / RECORD_NAME).is_file())
    if len(found) > 1:
        raise UsageError(f"{place} holds {len(found)} artifacts. Name one: {', '.join(map(str, found))}.")
    return found or [place]


def _artifact(path: Path, threads: int) -> Artifact:
    """Return the artifact at `path`; a source model in another format runs in its own framework."""
    if (path / RECORD_NAME).is_file() or path.suffix.lower() in ARTIFACT_SUFFIXES:
        return read_artifact(path, threads=threads)
    if (path.parent / RECORD_NAME).is_file():
        return read_artifact(path, threads=threads)
    if path.is_dir():
        raise FormatMismatchError(
            f"{path} holds no {RECORD_NAME} of a build, no manifest of a bundle, and no model. Name the model's file."
        )
    raise FormatMismatchError(
        f"{path} is no artifact that can be run: {', '.join(sorted(ARTIFACT_SUFFIXES))}, or a folder that a build "
        f"wrote. Convert it first: edgewright convert {path} --to litert --out DIR."
    )


def _with_threads(artifact: Artifact, threads: int) -> Artifact:
    return replace(artifact, target=replace(artifact.target, threads=threads))


def _recorded(record: object) -> dict[str, Array]:
    assert isinstance(record, dict)
    return {
        f"{model}.{name}" if model else str(name): np.load(str(path), allow_pickle=False)
        for model, made in record.items()
        for name, path in made.items()
    }


def _sized(spec: TensorSpec, shapes: Mapping[str, Sequence[int]]) -> TensorSpec:
    return spec if spec.is_static else replace(spec, shape=tuple(shapes[spec.name]))


def _raw(row: RawInput, value: RawSource) -> Raw:
    if isinstance(value, np.ndarray):
        return value
    if row.kind == "text":
        return str(value)
    return read_raw(row, Path(value))


def _hand_over(value: Raw, path: Path) -> object:
    if isinstance(value, str):
        return {"text": value}
    np.save(path, value, allow_pickle=False)
    return str(path)
