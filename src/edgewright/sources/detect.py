"""What kind of model a file is, told from its first bytes and its name, before any vendor library sees it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, UnavailableError, UsageError
from edgewright.core.files import require_model_file

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt")
_SUFFIX_FORMAT = {
    ".pt2": "pt2",
    ".onnx": "onnx",
    ".tflite": "tflite",
    ".lite": "tflite",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".torchscript": "torchscript",
    ".ptl": "torchscript",
}
_SAVED_MODEL = "saved_model.pb"
_GRAPHS_OF_BIN = (".param", ".xml")  # of ncnn and of OpenVINO
_HEAD_BYTES = 64


def is_factory(spec: str) -> bool:
    """Return True when `spec` names `package.module:factory` and not an existing file."""
    return FACTORY.fullmatch(spec) is not None and not Path(spec).exists()


def detect_format(path: Path) -> str:
    """Return the format of a file or a SavedModel's folder: one of `core.program.FORMATS`, or pickle.

    A pickle is a .pt/.pth/.th that only `weights` may read.

    Raises:
        UsageError: missing, empty, or weights where a model is expected.
        FormatMismatchError: the content is not what the name promises, or no known format.
        UnavailableError: a known format that this version does not read.
    """
    if path.is_dir() and (path / _SAVED_MODEL).is_file():
        return "saved_model"
    require_model_file(path)
    if path.name == _SAVED_MODEL:
        return "saved_model"
    graph = next((g for s in _GRAPHS_OF_BIN if (g := path.with_suffix(s)).is_file()), None)
    if path.suffix.lower() == ".bin" and graph is not None:
        raise UsageError(f"{path} holds the weights of {graph.name} beside it. Name {graph}.")
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    found = _by_content(path, head)
    promised = _SUFFIX_FORMAT.get(path.suffix.lower())
    if found == "executorch":
        raise UnavailableError(
            f"{path} is {_TITLES[found]}, which is not read by this version. {_ADVICE[found]}"
        )
    if found == "safetensors":
        raise UsageError(
            f"{path} holds only weights (safetensors). Give the model as package.module:factory "
            f"and the file with --weights {path.name}."
        )
    if promised and found and found != promised:
        raise FormatMismatchError(
            f"{path} is named {path.suffix} but its content is {_TITLES[found]}. Rename it or give another file."
        )
    if promised == "tflite" and found is None:
        raise FormatMismatchError(
            f"{path} is not a LiteRT model: bytes 4..8 are {head[4:8]!r}, expected b'TFL3'. "
            "It may be truncated or overwritten; export it again."
        )
    if promised == "pt2" and found is None:
        raise FormatMismatchError(
            f"{path} is not a .pt2 archive: it is not a complete zip file. "
            "Export it again with torch.export.save."
        )
    if promised == "torchscript" and found is None:
        raise FormatMismatchError(
            f"{path} is not a TorchScript archive: it is not a complete zip file with code. "
            "Save it again with torch.jit.save."
        )
    if promised == "keras" and found is None:
        raise FormatMismatchError(
            f"{path} is neither a complete .keras archive nor an HDF5 file. It may be truncated; save the model again."
        )
    result = promised or found
    if result is None and head[:2] == b"PK" and _zip_names(path) is None:
        raise FormatMismatchError(
            f"{path} is a zip file that is not complete. It may be truncated; save the model again."
        )
    if result is None:
        raise FormatMismatchError(
            f"{path} is in no format that is read here: expected .pt2, .onnx, .tflite, TorchScript, .keras, .h5, a "
            "SavedModel's folder, a frozen .pb, or package.module:factory."
        )
    return result


_TITLES = {
    "pt2": "a torch.export archive (.pt2)",
    "onnx": "ONNX",
    "tflite": "a LiteRT flatbuffer (.tflite)",
    "pickle": "a PyTorch pickle",
    "torchscript": "a TorchScript archive",
    "keras": "a Keras model (.keras, .h5)",
    "graph_def": "a TensorFlow graph (.pb)",
    "executorch": "an ExecuTorch program",
}
_ADVICE = {
    "executorch": "Give the .pt2 that it was made of.",
}


def _by_content(path: Path, head: bytes) -> str | None:
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:4] == b"PK\x03\x04" or head[:4] == b"PK\x05\x06":
        return _zip_kind(path)
    if head[:4] == b"\x89HDF":
        return "keras"
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return "executorch"
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    # A GraphDef begins with its first operator, which begins with its name: both are field 1 with a length.
    if path.suffix.lower() == ".pb" and head[:1] == b"\x0a":
        return "graph_def"
    is_torch_name = path.suffix.lower() in _TORCH_SUFFIXES
    # A protocol-2 pickle begins with 80 02; old torch.save files do, and so does any pickle of code.
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "pickle"
    return "pickle" if is_torch_name else None


def _zip_names(path: Path) -> list[str] | None:
    """Return the names of the members, or None where the archive is not whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None


def _zip_kind(path: Path) -> str | None:
    names = _zip_names(path)
    if names is None:
        return None
    if "config.json" in names and "model.weights.h5" in names:
        return "keras"
    if any("/models/" in name or name.endswith("archive_format") for name in names):
        return "pt2"
    if any(name == "serialized_exported_program.json" for name in names):
        return "pt2"
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "pickle"
    return None
