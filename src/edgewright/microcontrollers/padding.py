"""Padding of images row by row, so that it can stand in a chain before a convolution."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.microcontrollers.graph import ITEM_BYTES, Tensor
from edgewright.microcontrollers.layer import ByRows, Layer, Reach, Site, render

_PAD = """\
static void @(const {{ type }} *in, {{ type }} *out, int32_t first, int32_t last, int32_t in_rows)
{
    int32_t y{{ ", i" if not is_byte }};
    for (y = first; y < last; ++y) {
        const int32_t row = y - {{ above }};
        const int32_t is_inside = row >= 0 && row < {{ height }};
{% if is_byte %}
        memset(out, {{ value }}, {{ out_line }} * sizeof *out);
{% else %}
        for (i = 0; i < {{ out_line }}; ++i) {
            out[i] = {{ value }};
        }
{% endif %}
        if (is_inside) {
            memcpy(out + {{ left }}, in + row % in_rows * {{ line }}, {{ line }} * sizeof *out);
        }
        out += {{ out_line }};
    }
}
"""


def padded_image(
    site: Site, before: Sequence[int], after: Sequence[int], value: str, *, is_zero: bool
) -> Layer | None:
    """Return the layer that pads one image in height and width, None for any other padding.

    Args:
        before, after: numbers of values for each axis.
        value: what is padded with, as C.
        is_zero: all of its bytes are 0.
    """
    source, output = site.input(0), site.output()
    if len(source.shape) != 4 or any((*before[::3], *after[::3])) or not _is_one_image(source):
        return None
    height, width, depth = source.shape[1:]
    values: dict[str, object] = {
        "type": output.c_type, "value": "0" if is_zero else value,
        "is_byte": is_zero or ITEM_BYTES[output.dtype] == 1,
        "height": height, "line": width * depth, "above": before[1], "left": before[2] * depth,
        "out_line": output.shape[2] * depth,
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_PAD, values),
        arguments=("0", str(output.shape[1]), str(height)),
        reads=(source.index,),
        writes=(output.index,),
        by_rows=ByRows(rows=output.shape[1], reaches=(Reach(size=height, pad=before[1]),)),
    )


def _is_one_image(tensor: Tensor) -> bool:
    return tensor.shape[0] == 1 and tensor.count > 0 and tensor.value is None
