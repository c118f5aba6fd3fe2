"""Metrics: a score per sample, so that two models can be compared sample by sample."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import ConversionError, DataError, UnknownNameError
from edgewright.core.tensors import Array, Arrays
from edgewright.data.datasets import class_labels, import_function

Floats = npt.NDArray[np.float64]
Score = Callable[[Arrays, Array | None, Arrays | None], Array]
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: as the user wrote it ("top1", "mse@logits", "my.module:score").
        higher_is_better: a fall is a loss.
        needs_labels: cannot be scored without labels.
        is_binary: every score is 0 or 1, so that McNemar's test applies.
        unit: "fraction" (0..1, shown in percent and compared in points) or "value".
        aggregate: "mean": the value is the mean of the scores. "roc_auc": the scores are those of the
            positive class and the value is the area under the ROC curve (compare by DeLong, not by means).
        score: (outputs, labels, reference outputs) -> float64 [n]. Outputs are name -> [n, ...].
    """

    name: str
    higher_is_better: bool
    needs_labels: bool
    is_binary: bool
    unit: Literal["fraction", "value"]
    score: Score
    aggregate: Literal["mean", "roc_auc"] = "mean"

    def value(self, scores: Array, labels: Array | None) -> float:
        """Return the metric's value over all samples.

        Raises:
            DataError: the ROC curve lacks labels of both classes.
        """
        if self.aggregate == "mean":
            return float(np.mean(scores.astype(np.float64)))
        return roc_auc(scores, binary_labels(labels, len(scores)))


def names() -> tuple[str, ...]:
    """Return the names of the metrics that come with the package."""
    return tuple(sorted(_BUILT_IN))


def get_metric(name: str) -> Metric:
    """Return the metric called `name`: one of `names()`, or package.module:function.

    `top1@logits` scores the output called "logits" of a model with several outputs. A function is
    called as function(outputs, labels) with name -> [n, ...] and returns n scores; it may carry the
    attributes `higher_is_better` (True), `needs_labels` (False), `is_binary` (False), `unit` ("value").

    Raises:
        UnknownNameError: no metric has that name.
        DataError: the function cannot be imported.
    """
    if _FUNCTION.fullmatch(name):
        return _custom(name)
    base, _, output = name.partition("@")
    make = _BUILT_IN.get(base)
    if make is None:
        raise UnknownNameError.of("metric", base, [*_BUILT_IN, "package.module:function"])
    return make(name, output or None)


def _only_output(outputs: Arrays, chosen: str | None, metric: str) -> tuple[str, Array]:
    if chosen is not None:
        if chosen not in outputs:
            raise UnknownNameError.of("output", chosen, outputs)
        return chosen, outputs[chosen]
    if len(outputs) != 1:
        raise DataError(
            f"metric {metric!r} scores one output, but the model has {sorted(outputs)}. "
            f"Name it: {metric}@{next(iter(sorted(outputs)), 'output')}."
        )
    return next(iter(outputs.items()))


def _require_no_nan(name: str, array: Array) -> None:
    if array.dtype.kind == "f" and np.isnan(array).any():
        index = int(np.argmax(np.isnan(array.reshape(len(array), -1)).any(axis=1)))
        raise ConversionError(
            f"output {name!r} is NaN for sample {index}; it cannot be scored. Compare parity first."
        )


def _class_scores(outputs: Arrays, chosen: str | None, metric: str) -> Floats:
    """Return the class scores [n, classes]; [n, 1, ..., classes] is the same thing."""
    name, array = _only_output(outputs, chosen, metric)
    if array.ndim < 2 or array.shape[-1] < 2 or any(size != 1 for size in array.shape[1:-1]):
        raise DataError(
            f"metric {metric!r} takes class scores [n, classes], but output {name!r} is {list(array.shape)}. "
            "Choose another metric or output (metric@output)."
        )
    _require_no_nan(name, array)
    return array.reshape(len(array), array.shape[-1]).astype(np.float64)


def _top_k(name: str, output: str | None, k: int) -> Metric:
    """1 where the label is among the k highest scores; among equal scores the lower class number wins."""

    def score(outputs: Arrays, labels: Array | None, reference: Arrays | None) -> Array:
        scores = _class_scores(outputs, output, name)
        known = _require_labels(labels, len(scores), name)
        numbers = class_labels(known, scores.shape[1], what=f"metric {name!r}")
        rows = np.arange(len(scores))
        own = scores[rows, numbers][:, None]
        is_before = np.arange(scores.shape[1])[None, :] < numbers[:, None]
        rank = (scores > own).sum(axis=1) + ((scores == own) & is_before).sum(axis=1)
        return np.asarray(rank < k, dtype=np.float64)

    return Metric(
        name=name, higher_is_better=True, needs_labels=True, is_binary=True, unit="fraction", score=score
    )


def _require_labels(labels: Array | None, count: int, metric: str) -> Array:
    if labels is None:
        raise DataError(
            f"metric {metric!r} needs labels, but the data set has none. Add them under 'labels'."
        )
    if labels.ndim == 0 or len(labels) != count:
        raise DataError(f"metric {metric!r}: {count} outputs, but labels have shape {list(labels.shape)}.")
    return labels


def _error(name: str, output: str | None, *, of: Callable[[Floats, Floats], Floats], is_loss: bool) -> Metric:
    """A per-sample comparison with labels of the output's shape, or else with the source's outputs."""

    def score(outputs: Arrays, labels: Array | None, reference: Arrays | None) -> Array:
        if output is not None or len(outputs) == 1:
            key, array = _only_output(outputs, output, name)
            if labels is not None and labels.dtype.kind == "f" and labels.size == array.size:
                if len(labels) != len(array):
                    raise DataError(f"metric {name!r}: {len(array)} outputs, but {len(labels)} labels.")
                return of(_flat({key: array}, name), _flat({"labels": labels}, name))
            outputs = {key: array}
        if reference is None:
            raise DataError(
                f"metric {name!r} needs float labels of the output's shape, or the source's outputs. "
                "Add labels."
            )
        missing = [
            key for key in outputs if key not in reference or reference[key].shape != outputs[key].shape
        ]
        if missing:
            raise DataError(f"metric {name!r}: outputs {missing} are not in the source with the same shape.")
        other_dtype = [key for key in outputs if outputs[key].dtype.kind != reference[key].dtype.kind]
        if other_dtype:
            raise DataError(
                f"metric {name!r}: outputs {other_dtype} are integers on one side. Dequantize them first."
            )
        return of(_flat(outputs, name), _flat({key: reference[key] for key in outputs}, name))

    return Metric(
        name=name,
        higher_is_better=not is_loss,
        needs_labels=False,
        is_binary=False,
        unit="value",
        score=score,
    )


def _flat(outputs: Arrays, metric: str) -> Floats:
    """Return all outputs as float64 [n, values], one after another in the order of their names."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            index = int(np.argmax(~np.isfinite(array.reshape(len(array), -1)).all(axis=1)))
            raise ConversionError(
                f"metric {metric!r}: {name!r} has NaN or infinity for sample {index}. Compare parity first."
            )
    return np.concatenate(
        [outputs[name].reshape(len(outputs[name]), -1).astype(np.float64) for name in sorted(outputs)], axis=1
    )


def _squared_error(got: Floats, want: Floats) -> Floats:
    """Return the mean squared difference of each row."""
    return np.asarray(np.mean((got - want) ** 2, axis=1))


def _cosine(got: Floats, want: Floats) -> Floats:
    """Return the cosine of the angle between the rows; 1 for two zero rows, 0 for one."""
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    both_zero = ~got.any(axis=1) & ~want.any(axis=1)
    safe = np.where(norms > 0, norms, 1.0)
    return np.where(both_zero, 1.0, np.sum(got * want, axis=1) / safe)


def _auc(name: str, output: str | None) -> Metric:
    """The score of the positive class: s1 - s0 of two classes, or the only value."""

    def score(outputs: Arrays, labels: Array | None, reference: Arrays | None) -> Array:
        key, array = _only_output(outputs, output, name)
        _require_no_nan(key, array)
        columns = array.reshape(len(array), -1).astype(np.float64)
        if columns.shape[1] not in (1, 2):
            raise DataError(
                f"metric {name!r} takes one score or two classes a sample, but output {key!r} is "
                f"{list(array.shape)}. Choose another metric or output (metric@output)."
            )
        binary_labels(_require_labels(labels, len(columns), name), len(columns))
        return columns[:, 0] if columns.shape[1] == 1 else columns[:, 1] - columns[:, 0]

    return Metric(
        name=name,
        higher_is_better=True,
        needs_labels=True,
        is_binary=False,
        unit="fraction",
        score=score,
        aggregate="roc_auc",
    )


def binary_labels(labels: Array | None, count: int) -> Array:
    """Return the labels as int64 [n] after checking that they are 0 and 1, both present.

    Raises:
        DataError: they are not.
    """
    numbers = class_labels(_require_labels(labels, count, "roc_auc"), 2, what="metric 'roc_auc'")
    if len(np.unique(numbers)) != 2:
        raise DataError(f"metric 'roc_auc' needs samples of both classes, but all labels are {numbers[0]}.")
    return numbers


def roc_auc(scores: Array, labels: Array) -> float:
    """Return the area under the ROC curve, (R1 - n1(n1+1)/2) / (n0 n1), ties counted by half.

    R1 is the sum of the midranks of the n1 positive samples.

    Args:
        scores: float64 [n], higher for class 1.
        labels: int64 [n], 0 or 1, both present.
    Source: Hanley and McNeil, Radiology 143 (1982): the area is the Mann-Whitney statistic.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    positives = int(labels.sum())
    negatives = len(labels) - positives
    rank_sum = float(midranks[inverse][labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


_BUILT_IN: dict[str, Callable[[str, str | None], Metric]] = {
    "top1": lambda name, output: _top_k(name, output, 1),
    "top5": lambda name, output: _top_k(name, output, 5),
    "mse": lambda name, output: _error(name, output, of=_squared_error, is_loss=True),
    "cosine": lambda name, output: _error(name, output, of=_cosine, is_loss=False),
    "roc_auc": _auc,
}


def _custom(name: str) -> Metric:
    """Return the metric of the user's function; its attributes say how to read the scores."""
    function = import_function(name)

    def flag(attribute: str, default: bool) -> bool:
        value = getattr(function, attribute, default)
        if not isinstance(value, bool):
            raise DataError(f"{name}.{attribute} is {value!r}; True or False is expected.")
        return value

    unit: object = getattr(function, "unit", "value")
    if unit not in ("fraction", "value"):
        raise DataError(f"{name}.unit is {unit!r}; 'fraction' or 'value' is expected.")
    is_binary, needs_labels = flag("is_binary", False), flag("needs_labels", False)

    def score(outputs: Arrays, labels: Array | None, reference: Arrays | None) -> Array:
        count = len(next(iter(outputs.values())))
        if needs_labels:
            _require_labels(labels, count, name)
        scores = function(dict(outputs), labels)
        if not isinstance(scores, np.ndarray) or scores.shape != (count,) or scores.dtype.kind not in "biuf":
            got = (
                f"{scores.dtype}{list(scores.shape)}"
                if isinstance(scores, np.ndarray)
                else type(scores).__name__
            )
            raise DataError(f"metric {name!r} returned {got}; one number per sample, [{count}], is expected.")
        if not np.isfinite(scores).all():
            raise DataError(
                f"metric {name!r} is not finite for sample {int(np.argmin(np.isfinite(scores)))}."
            )
        if is_binary and not np.isin(scores, (0, 1)).all():
            raise DataError(f"metric {name!r} says is_binary, but returns scores that are neither 0 nor 1.")
        return scores.astype(np.float64)

    return Metric(
        name=name,
        higher_is_better=flag("higher_is_better", True),
        needs_labels=needs_labels,
        is_binary=is_binary,
        unit="fraction" if unit == "fraction" else "value",
        score=score,
    )
