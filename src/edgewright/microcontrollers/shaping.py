"""Operators that move values, or only look at them in another shape."""

from __future__ import annotations

from edgewright.microcontrollers.layer import Layer, Site, require


def reshape(site: Site) -> Layer:
    """Return RESHAPE, SQUEEZE or EXPAND_DIMS: the same memory under another shape."""
    source, output = site.input(0), site.output()
    require(source.dtype == output.dtype, f"types {source.dtype}/{output.dtype}")
    require(source.count == output.count, f"{source.count} values into a shape of {output.count}")
    return Layer(operator=site.operator, reads=(source.index,), writes=(output.index,), is_view=True)
