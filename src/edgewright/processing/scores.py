"""Steps from a model's scores to classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType


@dataclass(frozen=True, kw_only=True)
class Softmax(Step):
    """exp(x - max) / sum over the last axis, in float32."""

    name: ClassVar[str] = "softmax"

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        return _require_scores(self, given)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        scores = floats(values[0])
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Step):
    """1 / (1 + exp(-x)), element by element."""

    name: ClassVar[str] = "sigmoid"

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        return _require_scores(self, given)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        # Of |x|, so that exp never overflows.
        scores = floats(values[0])
        raised = np.exp(-np.abs(scores))
        return np.where(scores >= 0, 1 / (1 + raised), raised / (1 + raised)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class TopK(Step):
    """The best classes, the best first; of equal scores the lower index first. NaN is below everything.

    Attributes:
        k: how many at most.
        threshold: classes below it are left out.
    """

    name: ClassVar[str] = "top_k"
    k: int = 5
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 1000:
            raise UsageError(f"step 'top_k' has k {self.k}; 1..1000 is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if len(have.shape) != 1 or have.dtype != "float32":
            raise self.refuse(given, "one float32 score for each class")
        size = have.shape[0]
        count = None if size is None or self.threshold is not None else min(self.k, size)
        return ValueType(kind="classes", shape=(count, 2), dtype="float32", classes=size)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        scores = np.nan_to_num(floats(values[0]), nan=-np.inf)
        order = np.argsort(-scores, kind="stable")[: self.k]
        if self.threshold is not None:
            order = order[scores[order] >= np.float32(self.threshold)]
        return np.stack([order.astype(np.float32), scores[order]], axis=1)


def _require_scores(step: Step, given: tuple[ValueType, ...]) -> ValueType:
    have = step.elements(given)
    if have.dtype != "float32" or not have.shape:
        raise step.refuse(given, "float32 scores")
    return have
