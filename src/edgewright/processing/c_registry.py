"""Which function makes the C of a step. A step without a row has no C and is refused by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache

from edgewright.processing.c_site import CValue, Site
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

# What a step is given, and the type that it makes.
Emit = Callable[[Site, Step, tuple[CValue, ...], ValueType], CValue]

# name of the step -> module of edgewright.processing : function.
EMITTERS: Mapping[str, str] = {
    "cast": "c_steps_images:cast_image",
    "scale": "c_steps_images:scale_image",
    "quantize": "c_steps_images:quantize_image",
    "dequantize": "c_steps_tensors:dequantize",
    "reshape": "c_steps_tensors:reshape",
    "transpose": "c_steps_tensors:transpose",
    "softmax": "c_steps_tensors:softmax",
    "sigmoid": "c_steps_tensors:sigmoid",
    "top_k": "c_steps_tensors:top_k",
    "channels": "c_steps_images:channels",
    "crop": "c_steps_images:crop",
    "normalize": "c_steps_images:normalize",
    "layout": "c_steps_images:layout",
    "resize": "c_steps_images:resize",
    "short_side": "c_steps_images:short_side",
    "letterbox": "c_steps_images:letterbox",
    "join_boxes": "c_steps_boxes:join_boxes",
    "decode_ssd_outputs": "c_steps_boxes:decode_ssd_outputs",
    "decode_end_to_end": "c_steps_boxes:decode_end_to_end",
    "decode_anchors": "c_steps_boxes:decode_anchors",
    "decode_grid": "c_steps_boxes:decode_grid",
    "decode_yolo": "c_steps_boxes:decode_yolo",
    "nms": "c_steps_boxes:nms",
    "argmax": "c_steps_masks:argmax",
    "mask": "c_steps_masks:mask",
    "heatmap_keypoints": "c_steps_masks:heatmap_keypoints",
    "keypoints": "c_steps_masks:keypoints",
    "to_source": "c_steps_masks:to_source",
    "resample": "c_steps_audio:resample",
    "fit_length": "c_steps_audio:fit_length",
    "pre_emphasis": "c_steps_audio:pre_emphasis",
    "peak": "c_steps_audio:peak",
    "context": "c_steps_audio:context",
    "frame": "c_steps_audio:cut",
    "overlap_add": "c_steps_audio:overlap_add",
    "fft": "c_steps_spectrum:fft",
    "inverse_fft": "c_steps_spectrum:inverse_fft",
    "magnitude": "c_steps_spectrum:magnitude",
    "multiply": "c_steps_spectrum:multiply",
    "mel": "c_steps_spectrum:mel",
    "log": "c_steps_spectrum:log",
    "dct": "c_steps_spectrum:dct",
    "pcan": "c_steps_series:pcan",
    "window": "c_steps_series:window",
    "standardise": "c_steps_series:standardise",
    "relative": "c_steps_series:relative",
    "smooth": "c_steps_series:smooth",
    "threshold": "c_steps_series:threshold",
    "ctc": "c_steps_series:ctc",
}


@cache
def emitter(name: str) -> Emit | None:
    """Return the function that makes the C of the step called `name`; None where there is none."""
    if name not in EMITTERS:
        return None
    module, _, function = EMITTERS[name].partition(":")
    found: Emit = getattr(importlib.import_module(f"edgewright.processing.{module}"), function)
    return found
