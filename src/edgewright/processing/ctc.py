"""From scores of classes in time to the classes that were said or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewright.core.errors import UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, floats
from edgewright.processing.values import ValueType


@dataclass(frozen=True, kw_only=True)
class Ctc(Step):
    """The best class of each time, repeats joined, blanks left out: tensor [time, classes] -> codes int32 [n].

    Of equal scores the lower index is the best; NaN is below everything.

    Attributes:
        blank: index of the class that means nothing; -1 is the last.
    Source: A. Graves et al., "Connectionist Temporal Classification" (2006), best path decoding.
    """

    name: ClassVar[str] = "ctc"
    blank: int = 0

    def __post_init__(self) -> None:
        if not -1 <= self.blank <= 1_000_000:
            raise UsageError(f"step 'ctc' has blank {self.blank}; the index of a class, or -1, is expected.")

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        (have,) = given
        if len(have.shape) != 2 or have.dtype != "float32" or have.shape[1] in (None, 0):
            raise self.refuse(given, "float32 scores [time, classes]")
        classes = have.shape[1]
        assert classes is not None
        if self.blank >= classes:
            raise self.refuse(given, f"more than {self.blank} classes, as `blank` says,")
        return ValueType(kind="codes", shape=(None,), dtype="int32", classes=classes)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        scores = np.nan_to_num(floats(values[0]), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        if not len(scores):
            return np.zeros(0, dtype=np.int32)
        best = scores.argmax(axis=1)
        blank = scores.shape[1] - 1 if self.blank == -1 else self.blank
        first = np.concatenate([[True], best[1:] != best[:-1]])
        return np.asarray(best[first & (best != blank)], dtype=np.int32)
