"""`.ewz`: a lossless container for artifacts, its weights coded near their entropy. docs/ewz.md is the format."""

from edgewright.ewz.container import SUFFIX
from edgewright.ewz.packing import PackReport, UnpackReport, pack, packed_bytes, read_packed, unpack

__all__ = ["SUFFIX", "PackReport", "UnpackReport", "pack", "packed_bytes", "read_packed", "unpack"]
