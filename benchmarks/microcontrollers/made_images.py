"""Generated networks on images: windows, pools, paddings, sums and activations one after another, with branches.

Their maps are large enough that layers run row by row and results lie over rows that were read, on odd widths, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from made_draws import Draw, scale_of, zero_of
from made_graphs import Grower, Node


def image(draw: Draw, path: Path) -> None:
    """A random network of four to nine layers on one image."""
    grower = ImageGrower(draw)
    grower.feed()
    wanted = int(draw.integers(4, 10))
    while grower.count < wanted:
        grower.grow()
    grower.write(path)


class ImageGrower(Grower):
    """A network that grows layer by layer, each an image of one row or more."""

    def feed(self) -> None:
        """Add an image."""
        shape = (1, *(int(self._draw.integers(low, high)) for low, high in ((6, 33), (1, 21), (1, 9))))
        self._inputs.append(self._node(shape, scale_of(self._draw), zero_of(self._draw)))

    def grow(self) -> None:
        """Add a layer on one of the last images."""
        ways: list[Callable[[Node], None]] = [
            self._convolve, self._convolve, self._depthwise, self._depthwise, self._pool, self._pad, self._join,
            self._join, self._relu, self._leaky, self._gate,
        ]  # fmt: skip
        ways[int(self._draw.integers(0, len(ways)))](self._some())
