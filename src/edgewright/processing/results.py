"""What the app gets: typed results made of the arrays of the last steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.values import ValueType

_BOX_COLUMNS = 6


class Result(Protocol):
    """One result of a prediction."""

    def to_json(self) -> object:
        """Return it as JSON values."""
        ...


@dataclass(frozen=True, kw_only=True)
class Label:
    """One class; `name` is empty where the specification has no labels."""

    index: int
    name: str
    score: float

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {"index": self.index, "name": self.name, "score": _number(self.score)}


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Classes, the best first."""

    labels: tuple[Label, ...]

    def to_json(self) -> object:
        """Return it as JSON values."""
        return [label.to_json() for label in self.labels]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point in pixels of the source image."""

    x: float
    y: float
    score: float

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {"x": _number(self.x), "y": _number(self.y), "score": _number(self.score)}


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box in pixels of the source image: x0 <= x1, y0 <= y1, edges between pixels are whole numbers."""

    x0: float
    y0: float
    x1: float
    y1: float
    label: Label
    points: tuple[Point, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        record: dict[str, object] = {"box": [_number(n) for n in (self.x0, self.y0, self.x1, self.y1)]}
        record |= self.label.to_json()
        if self.points:
            record["points"] = [point.to_json() for point in self.points]
        return record


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Boxes, the best first."""

    boxes: tuple[Box, ...]

    def to_json(self) -> object:
        """Return it as JSON values."""
        return [box.to_json() for box in self.boxes]


@dataclass(frozen=True, kw_only=True)
class Points:
    """Keypoints, in the model's order."""

    points: tuple[Point, ...]

    def to_json(self) -> object:
        """Return it as JSON values."""
        return [point.to_json() for point in self.points]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """The index of a class for each pixel, [height, width], and the names of the classes."""

    classes: Array
    names: tuple[str, ...]

    def share(self) -> dict[int, float]:
        """Return index -> share of the pixels, 0..1, the largest first; classes that are nowhere are left out."""
        found, counts = np.unique(self.classes, return_counts=True)
        shares = sorted(zip(counts.tolist(), found.tolist(), strict=True), reverse=True)
        return {int(index): count / self.classes.size for count, index in shares}

    def to_json(self) -> object:
        """Return the size and the share of each class; the pixels are left out."""
        height, width = self.classes.shape
        return {
            "height": height,
            "width": width,
            "classes": [
                {"index": index, "name": name_of(self.names, index), "share": round(share, 6)}
                for index, share in self.share().items()
            ],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Waveform:
    """Sound: float32 samples, [n]."""

    samples: Array
    rate_hz: int

    def to_json(self) -> object:
        """Return the length; the samples are left out."""
        return {"samples": int(self.samples.size), "rate_hz": self.rate_hz}


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """Numbers that no other result describes."""

    array: Array

    def to_json(self) -> object:
        """Return them as nested lists."""
        return _numbers(self.array.tolist())


@dataclass(frozen=True, kw_only=True)
class Span:
    """A time in a stream, in seconds from its start, in which the class `index` was on."""

    start_s: float
    end_s: float
    index: int
    name: str

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        times = {"start_s": _number(self.start_s), "end_s": _number(self.end_s)}
        return {**times, "index": self.index, "name": self.name}


@dataclass(frozen=True, kw_only=True, eq=False)
class Spans(Values):
    """When something was on: what `threshold` gives over a stream, [runs, classes], and the spans of it."""

    spans: tuple[Span, ...]

    def to_json(self) -> object:
        """Return the spans; the runs are left out."""
        return [span.to_json() for span in self.spans]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What each run of a stream gave, in their order.

    Attributes:
        run_s: seconds of a run; 0 where the rate is not known.
    """

    runs: tuple[Result, ...]
    run_s: float

    def to_json(self) -> object:
        """Return a list with the JSON values of each run."""
        return [run.to_json() for run in self.runs]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Recognised classes in time, and their names together."""

    codes: tuple[int, ...]
    text: str

    def to_json(self) -> object:
        """Return it as JSON values."""
        return {"text": self.text, "codes": list(self.codes)}


def typed_result(array: Array, made: ValueType, names: tuple[str, ...]) -> Result:
    """Return `array`, which a flow of type `made` gave, as the record of its kind; `names` are the labels."""
    if made.kind == "classes":
        rows = array.tolist()
        return Classes(labels=tuple(_label(names, index, score) for index, score in rows))
    if made.kind == "boxes":
        return Boxes(boxes=tuple(_box(row, names) for row in array.tolist()))
    if made.kind == "keypoints":
        return Points(points=_points(array.reshape(-1).tolist()))
    if made.kind == "mask":
        return Mask(classes=array, names=names)
    if made.kind == "audio":
        return Waveform(samples=array, rate_hz=made.rate_hz)
    if made.kind == "codes":
        codes = tuple(int(code) for code in array.tolist())
        return Text(codes=codes, text="".join(name_of(names, code) for code in codes))
    return Values(array=array)


def spans_of(array: Array, run_s: float, names: tuple[str, ...]) -> Spans:
    """Return the spans in which `array` [runs, classes] is 1, in the order of their beginnings.

    Args:
        array: 0 and 1.
        run_s: seconds of a run.
        names: labels of the classes.
    """
    spans = []
    for index, column in enumerate(np.asarray(array, dtype=np.int8).T):
        edges = np.flatnonzero(np.diff(column, prepend=0, append=0))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            name = name_of(names, index)
            spans.append(Span(start_s=start * run_s, end_s=end * run_s, index=index, name=name))
    return Spans(array=array, spans=tuple(sorted(spans, key=lambda span: span.start_s)))


def result_lines(name: str, result: Result) -> list[str]:
    """Return the result called `name` as lines for people."""
    if isinstance(result, Classes):
        return [f"{_title(label)}  {label.score:.4f}" for label in result.labels] or [f"{name}: none"]
    if isinstance(result, Boxes):
        corners = [(f"{b.x0:.1f} {b.y0:.1f} {b.x1:.1f} {b.y1:.1f}", b) for b in result.boxes]
        return [f"{_title(b.label)}  {b.label.score:.4f}  at {text}" for text, b in corners] or [
            f"{name}: none"
        ]
    if isinstance(result, Mask):
        shares = result.share().items()
        return [
            f"{name_of(result.names, i) or f'class {i}'}  {share:.1%} of the pixels" for i, share in shares
        ]
    if isinstance(result, Waveform):
        return [f"{name}: {result.samples.size} samples at {result.rate_hz} Hz, {_seconds(result):.2f} s"]
    if isinstance(result, Text):
        return [f"{name}: {result.text or ' '.join(map(str, result.codes))}"]
    if isinstance(result, Points):
        return [f"{name} {n}: {p.x:.1f} {p.y:.1f}  {p.score:.4f}" for n, p in enumerate(result.points)]
    if isinstance(result, Runs):
        first = (result_lines(name, run)[0] for run in result.runs)
        return [f"{number * result.run_s:.2f} s  {line}" for number, line in enumerate(first)]
    if isinstance(result, Spans):
        return [
            f"{span.name or name}  {span.start_s:.2f} .. {span.end_s:.2f} s" for span in result.spans
        ] or [f"{name}: never"]
    if isinstance(result, Values):
        return [f"{name}: {np.array2string(result.array.squeeze(), precision=4, threshold=16, edgeitems=4)}"]
    return [f"{name}: {result.to_json()}"]


def _title(label: Label) -> str:
    return label.name or f"class {label.index}"


def _seconds(result: Waveform) -> float:
    return result.samples.size / max(result.rate_hz, 1)


def name_of(names: tuple[str, ...], index: int) -> str:
    """Return the label of class `index`, empty where there is none."""
    return names[index] if 0 <= index < len(names) else ""


def _label(names: tuple[str, ...], index: float, score: float) -> Label:
    return Label(index=int(index), name=name_of(names, int(index)), score=score)


def _box(row: list[float], names: tuple[str, ...]) -> Box:
    x0, y0, x1, y1, score, index = row[:_BOX_COLUMNS]
    return Box(
        x0=x0, y0=y0, x1=x1, y1=y1, label=_label(names, index, score), points=_points(row[_BOX_COLUMNS:])
    )


def _points(numbers: list[float]) -> tuple[Point, ...]:
    return tuple(
        Point(x=x, y=y, score=score)
        for x, y, score in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    )


def _numbers(value: object) -> object:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _number(value) if isinstance(value, float) else value


def _number(value: float) -> float | str | None:
    """Return a JSON number with the digits that float32 has; NaN, which JSON has not, is None."""
    number = float(value)
    if number != number:
        return None
    return float(f"{number:.7g}") if abs(number) != float("inf") else str(number)
