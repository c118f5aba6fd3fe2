"""What can be told of a TensorRT engine without TensorRT: its size, and the version that its first bytes hold."""

from __future__ import annotations

from pathlib import Path

from edgewright.core.errors import FormatMismatchError
from edgewright.core.files import sha256_of
from edgewright.sources.inspection import Inspection

_MAGIC = b"ptrt"
_VERSION_AT = (
    24  # four bytes: major, minor, patch, build. Source: NVIDIA/TensorRT issue 3073, answer of a maintainer
)
_HEAD_BYTES = 64


def inspect_tensorrt(path: Path) -> Inspection:
    """Return the size and the version of the engine at `path`; its layers are for TensorRT alone to read.

    Raises:
        FormatMismatchError: it does not begin as an engine of TensorRT 8 or newer.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
        raise FormatMismatchError(
            f"{path} is no TensorRT engine: it begins with {head[:4]!r}, expected {_MAGIC!r}. "
            "Give the file that trtexec --saveEngine wrote."
        )
    version = ".".join(str(part) for part in head[_VERSION_AT : _VERSION_AT + 4])
    return Inspection(
        name=path.name,
        format="tensorrt",
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=(),
        outputs=(),
        parameters=0,
        macs=None,
        macs_reason="an engine is opaque: inspect the ONNX model that it was built from",
        operators={},
        layers=(),
        precision="unknown",
        notes=(
            f"header says TensorRT {version}; the format is not documented, so this is not certain",
            "inputs, outputs, layers and parameters are compiled in: only TensorRT reads them, on the GPU of the build",
        ),
    )
