"""Models that give NaN, infinite and huge numbers, through every step of results: the C core as numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmarks.processing.core_specifications import IMAGE, Chain, Row
from benchmarks.processing.hostile_cases import Tally, watched

from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.processing.c_host import CProcessor
from edgewright.processing.c_program import COptions
from edgewright.processing.processor import Processor
from edgewright.processing.results import result_lines, typed_result

_LETTERBOX: Row = {"step": "letterbox", "height": 64, "width": 96}
_BACK: Row = {"step": "to_source"}
_FACES = {"step": "decode_anchors", "height": 64, "width": 96, "strides": [32], "sizes": [[10, 16, 24, 24]]}
_GRID: Row = {"step": "decode_grid", "height": 64, "width": 96}
Outputs = Mapping[str, tuple[tuple[int, ...], str]]


def _nms(**options: object) -> Row:
    return {"step": "nms", "iou": 0.4, "score": 0.3, "limit": 40, **options}


_PAIR: Outputs = {"a": ((60, 4), "float32"), "b": ((60, 3), "float32")}
CASES: Sequence[tuple[Outputs, Sequence[Row]]] = (
    *((_PAIR, ({"step": "join_boxes", "format": form}, _nms(), _BACK)) for form in ("xyxy", "yxyx", "xywh",
    "cxcywh")),
    *((_PAIR, ({"step": "join_boxes", "height": 64, "width": 96}, _nms(mode=mode, per_class=per_class,
    multi_label=True)))
      for mode in ("hard", "linear", "gaussian") for per_class in (False, True)),
    (_PAIR, ({"step": "join_boxes", "background": True}, _nms(score=-1e30, iou=0.0))),
    ({"a": ((12, 4), "float32"), "b": ((12, 2), "float32")}, (_FACES, _nms(), _BACK)),
    *(({"a": ((9, 8, 12), "float32")}, ({**_GRID, "centre": centre, "size": size, "objectness": place,
      "activation": way, "objectness_power": 0.6, "class_power": 0.4}, _nms(), _BACK))
      for centre, size, place, way in (("tanh", "sigmoid", "first", "sigmoid"), ("linear", "exp", "after_box",
      "none"),
                                       ("sigmoid", "exp", "none", "none"))),
    ({"a": ((126, 9), "float32")}, ({**_GRID, "layout": "rows", "strides": [8, 16, 32]}, _nms())),
    ({"a": ((15, 77), "float32")}, ({"step": "decode_yolo", "keypoints": 2}, _nms(), _BACK)),
    ({"a": ((77, 10), "float32")}, ({"step": "decode_yolo", "head": "v5", "layout": "rows"}, _nms(), _BACK)),
    ({"a": ((30, 4), "float32"), "b": ((30,), "float32"), "c": ((30,), "float32"), "d": ((1,), "float32")},
     ({"step": "decode_ssd_outputs", "height": 64, "width": 96}, _BACK)),
    ({"a": ((30, 12), "float32")}, ({"step": "decode_end_to_end", "format": "cxcywh"}, _BACK)),
    ({"a": ((8, 12, 5), "float32")}, ({"step": "argmax"}, _BACK)),
    ({"a": ((300, 4, 6), "float32")}, ({"step": "argmax", "axis": "first"}, _BACK)),
    ({"a": ((8, 12), "float32")}, ({"step": "mask"}, _BACK)),
    ({"a": ((8, 12), "int64")}, ({"step": "mask"}, _BACK)),
    ({"a": ((7, 16, 24), "float32")}, ({"step": "heatmap_keypoints", "height": 64, "width": 96, "refine": True},
    _BACK)),
    ({"a": ((17, 3), "float32")}, ({"step": "keypoints", "format": "yxs", "height": 64, "width": 96}, _BACK)),
    ({"a": ((50,), "float32")}, ({"step": "softmax"}, {"step": "top_k", "k": 9})),
    ({"a": ((50,), "float32")}, ({"step": "sigmoid"}, {"step": "top_k", "k": 9, "threshold": 0.4})),
    ({"a": ((50,), "float32")}, ({"step": "top_k", "k": 50},)),
    ({"a": ((50,), "int8")}, ({"step": "dequantize", "scale": 0.1, "zero_point": 3}, {"step": "top_k"})),
    ({"a": ((5,), "float32")}, ({"step": "smooth", "runs": 3, "hold": 2}, {"step": "threshold", "on": 0.6,
    "off": 0.3})),
    ({"a": ((40, 6), "float32")}, ({"step": "ctc", "blank": -1},)),
    *(({"a": ((50,), "float32")}, ({"step": "cast", "dtype": dtype},)) for dtype in ("int8", "uint8", "int16",
    "int32")),
    ({"a": ((50,), "float32")}, ({"step": "quantize", "scale": 0.01, "zero_point": -3},)),
    ({"a": ((50,), "float32")}, ({"step": "scale", "factor": [3e38], "offset": [-1.0]},)),
)  # fmt: skip


def outputs(work: Path, tally: Tally) -> None:
    """Run every case in numpy and in C."""
    image = np.random.default_rng(1).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    for number, (ends, rows) in enumerate(CASES):
        specs = tuple(
            TensorSpec(name=n, shape=(1, *shape), dtype=dtype) for n, (shape, dtype) in ends.items()
        )
        chain = Chain(name=f"case{number}", raw=IMAGE, rows=(_LETTERBOX,), shape=(64, 96, 3), dtype="uint8")
        checked = chain.plan(specs, rows)
        reference = Processor(checked)
        core = CProcessor(
            checked,
            work / str(number),
            options=COptions(max_side=512),
            flags=("-std=c99", "-O0", "-ffp-contract=off"),
        )
        what = " ".join(str(row["step"]) for row in rows)
        for name, made in _patterns(ends):
            with watched(tally, "NaN, infinite outputs", f"{what}: {name}"):
                wanted = reference.run({"image": image}, lambda model, inputs, made=made: made)["out"]
                in_c = core.run({"image": image}, lambda model, inputs, made=made: made)["out"]
                found = typed_result(wanted, checked.results["out"], ())
                found.to_json()
                result_lines("out", found)
                why = _apart(wanted, in_c, is_finite=checked.results["out"].kind in ("boxes",))
                if why:
                    tally.add_bad("NaN, infinite outputs", f"{what}: {name}: {why}")
                else:
                    tally.add("NaN, infinite outputs", "right")


def _patterns(ends: Outputs) -> Iterator[tuple[str, Arrays]]:
    """Yield what the model may give, by a name."""
    values = {
        "NaN": np.nan, "infinite": np.inf, "minus infinite": -np.inf, "huge": 3.4e38, "minus huge": -3.4e38,
        "tiny": 1e-45, "zero": 0.0, "minus zero": -0.0, "one": 1.0,
    }  # fmt: skip
    generator = np.random.default_rng(2)

    def noise(shape: tuple[int, ...], dtype: str) -> Array:
        array = generator.standard_normal((1, *shape)) * generator.choice([0.5, 5, 50])
        return array.astype(dtype) if dtype == "float32" else (array * 10).clip(-128, 127).astype(dtype)

    for name, value in values.items():
        filled = {
            n: np.full((1, *shape), value, "float32")
            for n, (shape, dtype) in ends.items()
            if dtype == "float32"
        }
        yield f"all {name}", {n: filled.get(n, noise(*end)) for n, end in ends.items()}
        for share in (0.02, 0.3):
            made = {n: noise(*end) for n, end in ends.items()}
            for array in made.values():
                if array.dtype.kind == "f":
                    array[generator.random(array.shape) < share] = value
            yield f"{share:.0%} {name}", made
    for number in range(12):
        made = {n: noise(*end) for n, end in ends.items()}
        for array in made.values():
            if array.dtype.kind == "f":
                places = generator.random(array.shape) < 0.4
                array[places] = generator.choice(np.array([*values.values()], np.float32), places.sum())
        yield f"mixture {number}", made


def _apart(wanted: Array, made: Array, *, is_finite: bool) -> str:
    """Return how the two differ; empty where they are the same, floats to 1e-5 of the largest finite one."""
    if wanted.shape != made.shape or wanted.dtype != made.dtype:
        return f"numpy makes {wanted.dtype}{list(wanted.shape)}, C {made.dtype}{list(made.shape)}"
    if wanted.dtype.kind != "f":
        return "" if np.array_equal(wanted, made) else f"{int((wanted != made).sum())} integers differ"
    if is_finite and not np.isfinite(wanted).all():
        return "boxes hold what is no number"
    if not np.array_equal(np.isnan(wanted), np.isnan(made)) or not np.array_equal(
        np.isinf(wanted), np.isinf(made)
    ):
        return f"NaN or infinite in other places: {wanted.ravel()[:6]} and {made.ravel()[:6]}"
    both = np.isfinite(wanted)
    if not np.array_equal(wanted[~both], made[~both], equal_nan=True):
        return "infinite of another sign"
    return "" if np.allclose(wanted[both], made[both], rtol=1e-5, atol=1e-6) else "other numbers"
