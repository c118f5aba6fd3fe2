"""Layers of an artifact for LiteRT Micro: the model in its C array, read without running it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgewright.backends.tflm_files import read_delivered
from edgewright.core.files import sha256_of
from edgewright.sources.inspect_tflite import tflite_layers
from edgewright.sources.inspection import Inspection, summary
from edgewright.sources.tflite import read_tflite


def inspect_tflm(path: Path) -> Inspection:
    """Return the description of NAME_model.cc, with NAME_model.h beside it.

    Raises:
        FormatMismatchError, IntegrityError: see `read_delivered` and `read_tflite`.
    """
    content, arena_bytes = read_delivered(path)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        model = Path(folder) / "model.tflite"
        model.write_bytes(content)
        program = read_tflite(model, spec=str(model))
        layers, parameters = tflite_layers(model)
    arena = f"arena {arena_bytes:,} bytes" if arena_bytes else "arena not measured"
    return summary(
        name=path.name,
        model_format="tflm",
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=program.inputs,
        outputs=program.outputs,
        layers=layers,
        parameters=parameters,
        precision=program.precision,
        notes=(f"a .tflite of {len(content):,} bytes as a C array", arena, *program.notes),
    )
