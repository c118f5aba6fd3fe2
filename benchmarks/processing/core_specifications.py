"""Chains of steps and small specifications that the C core is measured with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.core.tensors import TensorSpec
from edgewright.processing.c_program import COptions
from edgewright.processing.processor import Plan, Signature, plan
from edgewright.processing.registry import read_step
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification
from edgewright.processing.step import Step

Row = Mapping[str, object]
IMAGE = RawInput(name="image", kind="image")
CLIP = RawInput(name="clip", kind="audio", rate_hz=16_000)
HOP = RawInput(name="hop", kind="audio", rate_hz=16_000, samples=256)
NORMALIZE: Row = {"step": "normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CHW: Row = {"step": "layout", "layout": "chw"}


def steps_of(rows: Sequence[Row]) -> tuple[Step, ...]:
    """Return the steps of rows of a specification."""
    return tuple(read_step(dict(row), what="benchmark") for row in rows)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Steps from a raw input to a tensor of this shape."""

    name: str
    raw: RawInput
    rows: tuple[Row, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"

    def plan(self, outputs: tuple[TensorSpec, ...] = (), results: Sequence[Row] = ()) -> Plan:
        """Return a plan whose only model takes the tensor; its results are of all `outputs`."""
        outputs = outputs or (TensorSpec(name="y", shape=(1, 3), dtype="float32"),)
        signature = Signature(
            inputs=(TensorSpec(name="x", shape=(1, *self.shape), dtype=self.dtype),), outputs=outputs
        )
        specification = Specification(
            task="other",
            inputs=(self.raw,),
            tensors=(Flow(name="x", sources=(self.raw.name,), steps=steps_of(self.rows)),),
            results=(
                ResultFlow(name="out", sources=tuple(s.name for s in outputs), steps=steps_of(results)),
            ),
        )
        return plan(specification, signature)


CHAINS: tuple[Chain, ...] = (
    Chain(
        name="short_side_antialias", raw=IMAGE, shape=(3, 96, 96),
        rows=({"step": "short_side", "size": 110, "antialias": True}, {"step": "crop", "height": 96, "width": 96},
              NORMALIZE, CHW),
    ),
    Chain(name="bilinear", raw=IMAGE, shape=(97, 131, 3),
          rows=({"step": "resize", "height": 97, "width": 131}, NORMALIZE)),
    Chain(
        name="letterbox", raw=IMAGE, shape=(3, 128, 160),
        rows=({"step": "letterbox", "height": 128, "width": 160}, {"step": "channels", "order": "bgr"},
              {"step": "normalize"}, CHW),
    ),
    Chain(name="bicubic_antialias", raw=IMAGE, shape=(64, 80, 3), dtype="uint8",
          rows=({"step": "resize", "height": 64, "width": 80, "method": "bicubic", "antialias": True},)),
    Chain(name="area", raw=IMAGE, shape=(61, 53, 3), dtype="uint8",
          rows=({"step": "resize", "height": 61, "width": 53, "method": "area"},)),
    Chain(
        name="grey_int8", raw=IMAGE, shape=(96, 96, 1), dtype="int8",
        rows=({"step": "channels", "order": "grey"}, {"step": "crop", "fraction": 0.875},
              {"step": "resize", "height": 96, "width": 96, "corners": "align"},
              {"step": "scale", "factor": [1 / 255]}, {"step": "quantize", "scale": 1 / 255, "zero_point": -128}),
    ),
    Chain(name="nearest", raw=IMAGE, shape=(33, 201, 3), dtype="uint8",
          rows=({"step": "resize", "height": 33, "width": 201, "method": "nearest"},)),
    Chain(
        name="mfcc", raw=CLIP, shape=(49, 10),
        rows=({"step": "fit_length", "samples": 16000}, {"step": "frame", "length": 480, "hop": 320},
              {"step": "fft", "size": 512}, {"step": "magnitude"},
              {"step": "mel", "bins": 40, "low_hz": 20.0, "high_hz": 4000.0}, {"step": "log", "floor": 1e-6},
              {"step": "dct", "coefficients": 10}),
    ),
    Chain(
        name="log_mel", raw=CLIP, shape=(101, 80),
        rows=({"step": "fit_length", "samples": 16000, "at": "centre"}, {"step": "pre_emphasis"},
              {"step": "frame", "length": 400, "hop": 160, "centre": True, "pad": "reflect"},
              {"step": "fft", "size": 400}, {"step": "magnitude", "power": 2},
              {"step": "mel", "bins": 80, "scale": "slaney", "norm": "slaney"},
              {"step": "log", "scale": "log10", "span": 8.0}),
    ),
    Chain(
        name="resampled", raw=CLIP, shape=(30, 257),
        rows=({"step": "resample", "rate_hz": 11025}, {"step": "fit_length", "samples": 7936}, {"step": "peak"},
              {"step": "frame", "length": 512, "hop": 256, "window": "hamming"}, {"step": "fft", "size": 512},
              {"step": "magnitude"}, {"step": "standardise", "over": "all"}),
    ),
)  # fmt: skip


def fixed_plans() -> dict[str, tuple[Plan, COptions]]:
    """Return small specifications whose self-tests fit on a microcontroller, with the limits of their memory."""
    small = COptions(max_side=128, max_rows=20_000, max_mask_pixels=1 << 14)
    by_name = {chain.name: chain for chain in CHAINS}
    letterbox: tuple[Row, ...] = ({"step": "letterbox", "height": 64, "width": 96, "method": "bicubic"},)
    pixels = Chain(name="pixels", raw=IMAGE, rows=letterbox, shape=(64, 96, 3), dtype="uint8")
    antialias = Chain(
        name="antialias", raw=IMAGE, shape=(3, 48, 40),
        rows=({"step": "resize", "height": 48, "width": 40, "antialias": True}, NORMALIZE, CHW),
    )  # fmt: skip
    stream = Chain(
        name="stream", raw=HOP, shape=(256,),
        rows=({"step": "context", "samples": 256}, {"step": "fft", "size": 512}, {"step": "inverse_fft"},
              {"step": "overlap_add", "hop": 256, "window": "hann"}, {"step": "standardise", "over": "all"}),
    )  # fmt: skip
    grid: tuple[Row, ...] = (
        {"step": "decode_grid", "height": 64, "width": 96, "centre": "tanh", "size": "sigmoid", "objectness": "first",
         "activation": "sigmoid", "objectness_power": 0.6, "class_power": 0.4},
        {"step": "nms", "iou": 0.4, "score": 0.3, "mode": "gaussian"},
        {"step": "to_source"},
    )  # fmt: skip
    anchors: tuple[Row, ...] = (
        {"step": "decode_anchors", "height": 64, "width": 96, "strides": [16], "sizes": [[10, 16, 24, 24.5]],
         "background": True},
        {"step": "nms", "iou": 0.4, "score": 0.1},
        {"step": "to_source"},
    )  # fmt: skip
    scores = (TensorSpec(name="y", shape=(1, 300), dtype="float32"),)
    cells = (TensorSpec(name="y", shape=(1, 15, 8, 12), dtype="float32"),)
    boxes = (
        TensorSpec(name="boxes", shape=(1, 48, 4), dtype="float32"),
        TensorSpec(name="scores", shape=(1, 48, 3), dtype="float32"),
    )
    classes = (TensorSpec(name="y", shape=(1, 32, 48, 21), dtype="float32"),)
    top: tuple[Row, ...] = ({"step": "softmax"}, {"step": "top_k", "k": 5})
    return {
        "antialias": (antialias.plan(scores, top), small),
        "grey_int8": (by_name["grey_int8"].plan(), small),
        "grid_boxes": (pixels.plan(cells, grid), small),
        "anchor_boxes": (pixels.plan(boxes, anchors), small),
        "mask": (pixels.plan(classes, ({"step": "argmax"}, {"step": "to_source"})), small),
        "mfcc": (by_name["mfcc"].plan(), small),
        "log_mel": (by_name["log_mel"].plan(), small),
        "stream": (stream.plan(), small),
    }
