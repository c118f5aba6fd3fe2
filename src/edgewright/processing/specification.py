"""`processing.toml`: how raw inputs become a model's tensors, and its tensors results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tomli_w

from edgewright.core.errors import FormatMismatchError, RecipeError, UnknownNameError
from edgewright.core.files import copy_files, write_text
from edgewright.core.options import options_record, read_options
from edgewright.processing.registry import read_step, step_record
from edgewright.processing.step import Step, is_file_name
from edgewright.processing.toml_file import read_toml
from edgewright.processing.values import MAX_SIDE, RAW_DTYPES, Order, ValueType, image_type

PROCESSING_NAME = "processing.toml"
PROCESSING_VERSION = 1
_VERSION_KEY = "edgewright_processing"
_MAX_ROWS = 64
_MAX_STEPS = 64
_MAX_LINE = 90
MAX_LABELS = 100_000
_MAX_LABEL_LENGTH = 256
_MAX_LABEL_BYTES = 8 << 20
# Names become names in C, Kotlin, Swift and JavaScript.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")

Task = Literal[
    "classification", "detection", "segmentation", "keypoints", "audio-classification", "voice-activity",
    "denoising", "recognition", "series", "text", "other",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RawInput:
    """What the app hands over.

    Attributes:
        kind: image, audio, series, landmarks, text or tensor.
        order: of an image's channels as they reach the first step.
        height, width: of an image that always has the same size; 0 is any.
        rate_hz: of audio; a file of another rate is refused. 0 is any, for steps that do not ask for it.
        samples: of audio in one run: a clip's length, or a hop's of a stream. 0 is any length.
        shape: of a series, landmarks or a tensor; 0 is any length.
        dtype: of a tensor.
    """

    name: str
    kind: Literal["image", "audio", "series", "landmarks", "text", "tensor"]
    order: Order = ""
    height: int = 0
    width: int = 0
    rate_hz: int = 0
    samples: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_name(self.name, "input")
        if self.kind == "image" and not self.order:
            object.__setattr__(self, "order", "rgb")
        for what, number, most in (
            ("rate_hz", self.rate_hz, 1 << 20),
            ("samples", self.samples, 1 << 26),
            ("height", self.height, MAX_SIDE),
            ("width", self.width, MAX_SIDE),
        ):
            if not 0 <= number <= most:
                raise RecipeError(f"input {self.name!r} has {what} = {number}; 0..{most} is expected.")
        if self.dtype not in RAW_DTYPES:
            raise RecipeError(
                f"input {self.name!r} has dtype {self.dtype!r:.80}; {', '.join(RAW_DTYPES)} are expected."
            )
        if (self.height == 0) != (self.width == 0):
            raise RecipeError(
                f"input {self.name!r} has a height or a width alone; both, or none, are expected."
            )
        used = {"image": {"order", "height", "width"}, "audio": {"rate_hz", "samples"}, "text": set()}.get(
            self.kind, {"shape", "dtype"}
        )
        sides = {"height": self.height, "width": self.width}
        given = sides | {
            "order": self.order,
            "rate_hz": self.rate_hz,
            "samples": self.samples,
            "shape": self.shape,
        }
        for what, value in given.items():
            if value and what not in used:
                raise RecipeError(
                    f"input {self.name!r} is {self.kind} and has {what} = {value!r:.80}. Remove it."
                )

    @property
    def type(self) -> ValueType:
        """The type of the value that the steps get."""
        if self.kind == "image":
            return image_type(self.order, height=self.height or None, width=self.width or None)
        if self.kind == "audio":
            return ValueType(
                kind="audio", shape=(self.samples or None,), dtype="float32", rate_hz=self.rate_hz
            )
        if self.kind == "text":
            return ValueType(kind="text", shape=(), dtype="string")
        return ValueType(kind=self.kind, shape=tuple(size or None for size in self.shape), dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Named values through steps to a new one.

    Attributes:
        name: of what is made: a value of its own, or the tensor of a model.
        sources: names of inputs, values and the models' outputs; the first step takes them all.
    """

    name: str
    sources: tuple[str, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResultFlow(Flow):
    """What the app gets.

    Attributes:
        labels: a name for each class, where there are names.
        labels_file: beside the specification, which holds them.
    """

    labels: tuple[str, ...] = ()
    labels_file: str = "labels.txt"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model of several, by name; `file` is relative to the specification."""

    name: str
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A tensor that has the same value in each run."""

    tensor: str
    value: float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class State:
    """A tensor that gets what an output was in the run before; `initial` in the first."""

    tensor: str
    source: str
    initial: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Specification:
    """The whole way from what an app has to what it wants.

    A tensor of the only model goes by its own name, one of several models by MODEL.TENSOR.

    Attributes:
        values: made on the way, for several uses.
        tensors: the models' inputs, by the tensor's name.
        folder: that it was read from: it holds the files which steps name, such as a tokenizer's.
    """

    task: Task
    inputs: tuple[RawInput, ...]
    tensors: tuple[Flow, ...]
    results: tuple[ResultFlow, ...]
    values: tuple[Flow, ...] = ()
    models: tuple[Model, ...] = ()
    constants: tuple[Constant, ...] = ()
    states: tuple[State, ...] = ()
    folder: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        rows = [
            self.inputs,
            self.tensors,
            self.results,
            self.values,
            self.models,
            self.constants,
            self.states,
        ]
        if any(len(row) > _MAX_ROWS for row in rows):
            raise RecipeError(f"a specification has more than {_MAX_ROWS} rows of one kind.")
        for what, found in (("input", self.inputs), ("tensor", self.tensors), ("result", self.results)):
            if not found:
                raise RecipeError(f"a specification has no {what}; one at least is expected.")
        for flow in (*self.results, *self.values):
            _check_name(flow.name, "result" if flow in self.results else "value")
        for model in self.models:
            _check_name(model.name, "model")
        made = [
            *(row.name for row in self.inputs),
            *(flow.name for flow in (*self.values, *self.results)),
            *(model.name for model in self.models),
        ]
        fed = [
            *(flow.name for flow in self.tensors),
            *(constant.tensor for constant in self.constants),
            *(state.tensor for state in self.states),
        ]
        for names in (made, fed):
            for name in sorted(set(names)):
                if names.count(name) > 1:
                    raise RecipeError(
                        f"the name {name!r} is given {names.count(name)} times. Give each its own."
                    )

        files: dict[str, tuple[str, ...]] = dict.fromkeys((PROCESSING_NAME, *self.step_files()), ())
        for result in self.results:
            if result.labels and files.setdefault(result.labels_file, result.labels) != result.labels:
                raise RecipeError(
                    f"result {result.name!r} has labels in {result.labels_file!r}, which holds something else. Give "
                    "them a file of their own."
                )

    def flows(self) -> tuple[Flow, ...]:
        """Return all flows: of values, tensors and results."""
        return (*self.values, *self.tensors, *self.results)

    def step_files(self) -> tuple[str, ...]:
        """Return the names of the files beside the specification that its steps read, each once."""
        steps = (step for flow in self.flows() for step in flow.steps)
        return tuple(dict.fromkeys(name for step in steps for name in step.files()))


def read_specification(path: Path) -> Specification:
    """Return the specification in the file at `path`, or in the folder's `processing.toml`.

    Raises:
        RecipeError: no such file, no TOML, of another version, or a row or an option that is not expected.
        UnknownNameError: a step, key or name that does not exist, with the nearest one.
    """
    file = path / PROCESSING_NAME if path.is_dir() else path
    record = read_toml(file, what="specification")
    return specification_of(record, folder=file.parent, what=str(file))


def write_specification(specification: Specification, folder: Path) -> Path:
    """Write `processing.toml`, its label files and the files that its steps read into `folder`; return its path.

    Raises:
        RecipeError: a file that a step reads is not beside the specification.
    """
    beside = {name: (specification.folder or Path()) / name for name in specification.step_files()}
    for name, file in beside.items():
        if not file.is_file():
            raise RecipeError(
                f"a step reads {name!r}, but {file} is no file. Put it beside the specification."
            )
    copy_files({name: file for name, file in beside.items() if not _is_same(file, folder / name)}, folder)
    for result in specification.results:
        if result.labels:
            write_text(folder / result.labels_file, "".join(f"{label}\n" for label in result.labels))
    write_text(folder / PROCESSING_NAME, specification_text(specification))
    return folder / PROCESSING_NAME


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def specification_text(specification: Specification) -> str:
    """Return the text of `processing.toml`."""
    # Short lists stay on their line: tomli_w would give each number one of its own.
    lists = re.compile(r"\[\n((?:    [^\[\]{}\n]*,\n)+)\]")
    return lists.sub(_on_one_line, tomli_w.dumps(specification_record(specification)))


def specification_record(specification: Specification) -> dict[str, object]:
    """Return the values of the TOML file; labels are left out, as they lie in files of their own."""
    record: dict[str, object] = {_VERSION_KEY: PROCESSING_VERSION, "task": specification.task}
    if specification.models:
        record["models"] = [_without_defaults(model) for model in specification.models]
    record["inputs"] = [_without_defaults(row) for row in specification.inputs]
    for key, flows in (("values", specification.values), ("tensors", specification.tensors)):
        if flows:
            record[key] = [_flow_record(flow) for flow in flows]
    if specification.constants:
        record["constants"] = [_without_defaults(row) for row in specification.constants]
    if specification.states:
        record["states"] = [_without_defaults(row) for row in specification.states]
    record["results"] = [
        _flow_record(flow) | ({"labels": flow.labels_file} if flow.labels else {})
        for flow in specification.results
    ]
    return record


def specification_of(record: Mapping[str, object], *, folder: Path, what: str) -> Specification:
    """Return the specification of the values of a TOML file; label files are read from `folder`.

    Raises:
        RecipeError, UnknownNameError: as of `read_specification`.
    """
    version = record.get(_VERSION_KEY)
    if version != PROCESSING_VERSION:
        raise RecipeError(
            f"{what} has {_VERSION_KEY} = {version!r}; {PROCESSING_VERSION} is expected. "
            "It is no specification of processing, or of another version."
        )
    keys = (_VERSION_KEY, "task", "models", "inputs", "values", "tensors", "constants", "states", "results")
    for key in record:
        if key not in keys:
            raise UnknownNameError.of("key of a specification", key, keys)
    task = read_options(_Head, {"task": record.get("task", "other")}, what=what).task
    return Specification(
        task=task,
        folder=folder,
        models=tuple(read_options(Model, row, what=at) for row, at in _rows(record, "models", what)),
        inputs=tuple(read_options(RawInput, row, what=at) for row, at in _rows(record, "inputs", what)),
        values=tuple(_read_flow(row, at) for row, at in _rows(record, "values", what)),
        tensors=tuple(_read_flow(row, at) for row, at in _rows(record, "tensors", what)),
        constants=tuple(read_options(Constant, row, what=at) for row, at in _rows(record, "constants", what)),
        states=tuple(read_options(State, row, what=at) for row, at in _rows(record, "states", what)),
        results=tuple(_read_result(row, at, folder) for row, at in _rows(record, "results", what)),
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the lines of a label file, in UTF-8: line i names class i.

    Raises:
        RecipeError: it cannot be read, is empty, too long, or holds control characters.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise RecipeError(f"label file {path} is no file. Check the path.")
        if path.stat().st_size > _MAX_LABEL_BYTES:
            raise RecipeError(f"label file {path} has more than {_MAX_LABEL_BYTES} bytes.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise RecipeError(
            f"label file {path} cannot be read: {err}. One label a line, in UTF-8, is expected."
        ) from err
    return checked_labels(text.splitlines(), what=f"label file {path}")


def check_label_count(flow: ResultFlow, classes: int | None) -> None:
    """Raise FormatMismatchError where labels are not one a class: those behind a missing one would name others."""
    if flow.labels and classes is not None and len(flow.labels) != classes:
        raise FormatMismatchError(
            f"result {flow.name!r} has {classes} classes, but {flow.labels_file} has {len(flow.labels)} labels. "
            "Give one label a line for each class, in the order of the model."
        )


def checked_labels(lines: Sequence[str], *, what: str) -> tuple[str, ...]:
    """Return `lines` as labels, without spaces around them and without empty ones at the end.

    Args:
        what: where they come from, for messages.
    Raises:
        RecipeError: there is none, there are too many, or one is too long or holds control characters.
    """
    labels = tuple(line.strip() for line in lines)
    while labels and not labels[-1]:
        labels = labels[:-1]
    if not 1 <= len(labels) <= MAX_LABELS:
        raise RecipeError(f"{what} has {len(labels)} labels; 1..{MAX_LABELS} are expected.")
    for number, label in enumerate(labels, start=1):
        if len(label) > _MAX_LABEL_LENGTH or not label.isprintable():
            raise RecipeError(
                f"{what}, line {number}: a label has up to {_MAX_LABEL_LENGTH} printable characters."
            )
    return labels


@dataclass(frozen=True, kw_only=True)
class _Head:
    task: Task


@dataclass(frozen=True, kw_only=True)
class _FlowHead:
    name: str
    sources: tuple[str, ...]


def _rows(record: Mapping[str, object], key: str, what: str) -> Sequence[tuple[dict[str, object], str]]:
    rows = record.get(key, [])
    if not isinstance(rows, list) or len(rows) > _MAX_ROWS or not all(isinstance(row, dict) for row in rows):
        raise RecipeError(
            f"{what} has {key} = {rows!r:.80}; up to {_MAX_ROWS} tables [[{key}]] are expected."
        )
    return [
        ({_TO_FIELD.get(k, k): v for k, v in row.items()}, f"{what}: {key} {n + 1}")
        for n, row in enumerate(rows)
    ]


# "from" is the word of the file; it cannot be a field in Python.
_TO_FIELD = {"from": "sources"}


def _read_flow(row: dict[str, object], what: str) -> Flow:
    head, steps = _read_head(row, what)
    return Flow(name=head.name, sources=head.sources, steps=steps)


def _read_head(row: dict[str, object], what: str) -> tuple[_FlowHead, tuple[Step, ...]]:
    steps = row.get("steps", [])
    if not isinstance(steps, list) or len(steps) > _MAX_STEPS:
        raise RecipeError(
            f"{what} has steps = {steps!r:.80}; a list of up to {_MAX_STEPS} tables is expected."
        )
    sources = row.get("sources", [])
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise RecipeError(f'{what} has from = {sources!r:.80}; a list such as ["image"] is expected.')
    head = read_options(_FlowHead, {k: v for k, v in row.items() if k != "steps"}, what=what)
    read = tuple(read_step(step, what=f"{what}, step {n + 1}") for n, step in enumerate(steps))
    if not head.sources:
        raise RecipeError(f"{what} has from = []; the name of an input, a value or an output is expected.")
    return head, read


def _read_result(row: dict[str, object], what: str, folder: Path) -> ResultFlow:
    file = row.pop("labels", "")
    head, steps = _read_head(row, what)
    if not file:
        return ResultFlow(name=head.name, sources=head.sources, steps=steps)
    if not isinstance(file, str) or not is_file_name(file):
        raise RecipeError(
            f"{what} has labels = {file!r:.80}; the name of a file beside the specification is expected."
        )
    return ResultFlow(
        name=head.name, sources=head.sources, steps=steps, labels=read_labels(folder / file), labels_file=file
    )


def _flow_record(flow: Flow) -> dict[str, object]:
    record: dict[str, object] = {"name": flow.name, "from": list(flow.sources)}
    if flow.steps:
        record["steps"] = [step_record(step) for step in flow.steps]
    return record


def _without_defaults(row: RawInput | Model | Constant | State) -> dict[str, object]:
    fields = type(row).__dataclass_fields__
    names = {field: key for key, field in _TO_FIELD.items()}
    return {
        names.get(name, name): value
        for name, value in options_record(row).items()
        if getattr(row, name) != fields[name].default
    }


def _on_one_line(found: re.Match[str]) -> str:
    items = ", ".join(line.strip().removesuffix(",") for line in found[1].splitlines())
    return f"[{items}]" if len(items) <= _MAX_LINE else found[0]


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"{what} has the name {name!r:.80}; a letter, then up to 47 letters, digits and _ are expected."
        )
