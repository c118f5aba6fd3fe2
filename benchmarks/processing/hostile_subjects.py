"""Signatures that each preset takes, without a model, small enough to be run thousands of times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgewright.core.tensors import TensorSpec
from edgewright.processing import presets
from edgewright.processing.presets import Quantization, Subject
from edgewright.processing.processor import Signature
from edgewright.processing.specification import Specification

Row = tuple[str, tuple[int | None, ...], str]
FLOAT, BYTE = "float32", "int8"


def _subject(taken: tuple[Row, ...], given: tuple[Row, ...], **ends: tuple[float, int]) -> Subject:
    inputs, outputs = (
        tuple(TensorSpec(name=name, shape=shape, dtype=dtype) for name, shape, dtype in rows)
        for rows in (taken, given)
    )
    quantization = {name: Quantization(scale=s, zero_point=z) for name, (s, z) in ends.items()}
    return Subject(
        path=Path("model.onnx"),
        signature=Signature(inputs=inputs, outputs=outputs),
        quantization=quantization,
    )


def _image(shape: tuple[int, ...], *given: Row) -> Mapping[str, Subject]:
    return {"": _subject((("x", (1, *shape), FLOAT),), given)}


_FACES = sum(rows * columns * sizes for rows, columns, sizes in ((8, 10, 3), (4, 5, 2), (2, 3, 2), (1, 2, 3)))
SUBJECTS: Mapping[str, Mapping[str, Subject]] = {
    "imagenet": _image((3, 32, 32), ("y", (1, 1000), FLOAT)),
    "mobilenet_v1": _image((32, 32, 3), ("y", (1, 1001), FLOAT)),
    "person_detect": {
        "": _subject(
            (("x", (1, 96, 96, 1), BYTE),), (("y", (1, 2), BYTE),), x=(0.0078431, -1), y=(1 / 256, -128)
        )
    },
    "cifar": _image((32, 32, 3), ("y", (1, 10), FLOAT)),
    "deeplab": _image((33, 33, 3), ("y", (1, 33, 33, 21), FLOAT)),
    "ssd": _image(
        (64, 64, 3),
        ("boxes", (1, 10, 4), FLOAT), ("classes", (1, 10), FLOAT), ("scores", (1, 10), FLOAT), ("count", (1,), FLOAT),
    ),
    "yolo": _image((3, 64, 64), ("y", (1, 84, 84), FLOAT)),
    "fastestdet": _image((3, 64, 64), ("y", (1, 85, 4, 4), FLOAT)),
    "ultraface": _image((3, 60, 80), ("boxes", (1, _FACES, 4), FLOAT), ("scores", (1, _FACES, 2), FLOAT)),
    "ultraface_raw": _image((3, 60, 80), ("boxes", (1, _FACES, 4), FLOAT), ("scores", (1, _FACES, 2), FLOAT)),
    "kws_mfcc": {
        "": _subject((("x", (1, 49, 10, 1), BYTE),), (("y", (1, 12), BYTE),), x=(0.58, 83), y=(1 / 256, -128))
    },
    "micro_speech": {
        "": _subject((("x", (1, 1960), BYTE),), (("y", (1, 4), BYTE),), x=(0.1, -128), y=(1 / 256, -128))
    },
    "silero_vad": {
        "": _subject(
            (("input", (None, None), FLOAT), ("state", (2, None, 128), FLOAT), ("sr", (), "int64")),
            (("output", (None, 1), FLOAT), ("stateN", (None, None, None), FLOAT)),
        )
    },
    "dtln": {
        f"model_{n}": _subject(
            ((f"in{n}", (1, 1, size), FLOAT), (f"h{n}", (1, 2, 128, 2), FLOAT)),
            ((f"out{n}", (None, 1, size), FLOAT), (f"k{n}", (None, 2, 128, 2), FLOAT)),
        )
        for n, size in ((1, 257), (2, 512))
    },
    "gesture": {"": _subject((("x", (1, 42), FLOAT),), (("y", (1, 3), FLOAT),))},
    "motion": {"": _subject((("x", (None, 100, 6), FLOAT),), (("y", (None, 4), FLOAT),))},
}  # fmt: skip


def preset(name: str) -> tuple[Specification, dict[str, Signature]]:
    """Return the specification of the preset `name` for its subjects, and their signatures."""
    models = SUBJECTS[name]
    return presets.make(name, models), {key: subject.signature for key, subject in models.items()}
