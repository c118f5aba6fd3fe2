"""The steps by name. A row names the step's class; its module is imported when the step is first used."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from functools import cache

from edgewright.core.errors import RecipeError, UnknownNameError, UsageError
from edgewright.core.options import options_record, read_options
from edgewright.processing.step import Step

_MAX_FLOAT = (
    3.4028234663852886e38  # float32's largest; what is infinite or no number is refused with its option
)
# name -> module of edgewright.processing : class. One row a step; the key is the class's `name`.
STEPS: Mapping[str, str] = {
    "cast": "tensors:Cast",
    "scale": "tensors:Scale",
    "quantize": "tensors:Quantize",
    "dequantize": "tensors:Dequantize",
    "reshape": "tensors:Reshape",
    "transpose": "tensors:Transpose",
    "softmax": "scores:Softmax",
    "sigmoid": "scores:Sigmoid",
    "top_k": "scores:TopK",
    "channels": "images:Channels",
    "crop": "images:Crop",
    "normalize": "images:Normalize",
    "layout": "images:Layout",
    "resize": "resize:Resize",
    "short_side": "resize:ShortSide",
    "letterbox": "resize:Letterbox",
    "join_boxes": "boxes:JoinBoxes",
    "decode_ssd_outputs": "boxes:DecodeSsdOutputs",
    "decode_end_to_end": "boxes:DecodeEndToEnd",
    "decode_anchors": "anchors:DecodeAnchors",
    "decode_grid": "grids:DecodeGrid",
    "decode_yolo": "grids:DecodeYolo",
    "nms": "nms:Nms",
    "argmax": "masks:Argmax",
    "mask": "masks:Mask",
    "heatmap_keypoints": "keypoints:HeatmapKeypoints",
    "keypoints": "keypoints:Keypoints",
    "to_source": "source:ToSource",
    "resample": "audio:Resample",
    "fit_length": "audio:FitLength",
    "pre_emphasis": "audio:PreEmphasis",
    "peak": "audio:Peak",
    "context": "audio:Context",
    "frame": "spectrum:Cut",
    "fft": "spectrum:Fft",
    "magnitude": "spectrum:Magnitude",
    "inverse_fft": "spectrum:InverseFft",
    "overlap_add": "spectrum:OverlapAdd",
    "multiply": "spectrum:Multiply",
    "mel": "mel:Mel",
    "log": "mel:Log",
    "dct": "mel:Dct",
    "pcan": "pcan:Pcan",
    "window": "series:SeriesWindow",
    "standardise": "series:Standardise",
    "relative": "landmarks:Relative",
    "smooth": "smoothing:Smooth",
    "threshold": "smoothing:Threshold",
    "ctc": "ctc:Ctc",
    "tokenize": "text:Tokenize",
}


def names() -> list[str]:
    """Return the names of all steps."""
    return list(STEPS)


@cache
def step_class(name: str) -> type[Step]:
    """Return the class of the step called `name`.

    Raises:
        UnknownNameError: there is none; says the nearest name.
    """
    if name not in STEPS:
        raise UnknownNameError.of("step", name, STEPS)
    module, _, cls = STEPS[name].partition(":")
    found: type[Step] = getattr(importlib.import_module(f"edgewright.processing.{module}"), cls)
    assert issubclass(found, Step) and found.name == name
    return found


def read_step(record: object, *, what: str) -> Step:
    """Return the step of a table with the key "step"; the other keys are its options.

    Raises:
        UsageError: no table, no such step, no such option, or an option out of range.
    """
    if not isinstance(record, dict) or not isinstance(record.get("step"), str):
        raise RecipeError(f'{what} is {record!r:.80}; a table such as {{ step = "softmax" }} is expected.')
    options = {key: value for key, value in record.items() if key != "step"}
    for key, value in options.items():
        if not _fits_float32(value):
            raise RecipeError(
                f"{what}: {record['step']:.80}: {key} is beyond float32, in which all is computed."
            )
    try:
        cls = step_class(record["step"])
    except UnknownNameError as err:
        raise UnknownNameError(f"{what}: {err}") from err
    try:
        return read_options(cls, options, what=f"{what}: {record['step']}")
    except UsageError as err:
        raise err if what in str(err) else type(err)(f"{what}: {err}") from err


def _fits_float32(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_fits_float32, value))
    return not isinstance(value, float) or not _MAX_FLOAT < abs(value) < math.inf


def step_record(step: Step) -> dict[str, object]:
    """Return the table of `step`, without the options that have their default value."""
    defaults = {name: field.default for name, field in type(step).__dataclass_fields__.items()}
    options = {
        name: value
        for name, value in options_record(step).items()
        if value is not None and getattr(step, name) != defaults[name]
    }
    return {"step": step.name, **options}
