"""What a step is: a frozen dataclass whose fields are its options, its type rule, and its reference in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import UnknownNameError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.values import ValueType

Floats = npt.NDArray[np.float32]


def floats(array: Array) -> Floats:
    """Return `array` as float32; itself where it is."""
    return np.asarray(array, dtype=np.float32)


def is_file_name(name: str) -> bool:
    """Return whether `name` is of a file in the same folder: no path, and printable."""
    return name not in ("", "..") and Path(name).name == name and name.isprintable()


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the pixels of a prepared image lie in its source: source = (prepared - offset) / scale.

    Attributes:
        source_height, source_width: of the raw image, in pixels, once turned upright.
        height, width: of the image as it is now.
        scale_x, scale_y: prepared pixels for each source pixel.
        offset_x, offset_y: in prepared pixels; pixel edges are at whole numbers.
    """

    source_height: int
    source_width: int
    height: int
    width: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0


@dataclass
class Frame:
    """What a step may read and keep while it runs.

    Attributes:
        given: the types of what the step takes, as its `result` got them.
        geometries: name of an image input -> where its prepared pixels lie; of the tensor prepared last.
        folder: where the specification lies, for steps that read a file beside it.
        state: what the step keeps from one run to the next, as its `initial` gave it; a step replaces it.
    """

    given: tuple[ValueType, ...] = ()
    geometries: Mapping[str, Geometry] = field(default_factory=dict)
    folder: Path = Path()
    state: Array | None = None

    def geometry(self, image: str) -> Geometry:
        """Return the geometry of the input called `image`; of the only one where `image` is empty.

        Raises:
            UsageError: there is none, or more than one to choose from.
        """
        if image:
            if image not in self.geometries:
                raise UnknownNameError.of("image input", image, self.geometries)
            return self.geometries[image]
        if len(self.geometries) != 1:
            raise UsageError(
                f"a step reads the geometry of an image, but {len(self.geometries)} images are prepared. "
                "Name the input in the step's option `image`."
            )
        return next(iter(self.geometries.values()))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One named step; sub-classes are frozen dataclasses with the options as fields.

    A step checks its options in `__post_init__`, what it is given in `result`, and trusts both in `apply`.
    """

    name: ClassVar[str]
    count: ClassVar[tuple[int, int]] = (1, 1)  # values that it takes: from, to

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        """Return the type of what `apply` makes of values of the types `given`.

        Raises:
            UsageError: the step does not take these.
        """
        raise NotImplementedError

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        """Return the value made of `values`; the reference that every other implementation must equal."""
        raise NotImplementedError

    def move(self, geometry: Geometry) -> Geometry:
        """Return where the image's pixels lie after the step; steps that move pixels override it."""
        return geometry

    def geometry_of(self) -> str | None:
        """Return the image input whose geometry the step reads: its name, "" for the only one, None for no image."""
        return None

    def initial(self, given: tuple[ValueType, ...]) -> Array | None:
        """Return the state before the first run; None for a step without one."""
        return None

    def files(self) -> tuple[str, ...]:
        """Return the names of the files beside the specification that the step reads."""
        return ()

    def elements(self, given: tuple[ValueType, ...]) -> ValueType:
        """Return the type of the only value, whose numbers may be changed one by one.

        Raises:
            UsageError: it is a text, or its rows hold indices and places that no longer were some.
        """
        (have,) = given
        if have.dtype == "string" or have.kind in ("classes", "candidates", "boxes"):
            raise self.refuse(given, "a tensor, an image, sound, or scores")
        return have

    def refuse(self, given: tuple[ValueType, ...], expected: str) -> UsageError:
        """Return the error for values that the step does not take."""
        got = " and ".join(map(str, given)) or "nothing"
        return UsageError(
            f"step {self.name!r} got {got}, but {expected} is expected. Change the steps before it."
        )
