"""A `.mlpackage` folder: its manifest, its model file and its weight file, read and written by our own code.

Layout: `Manifest.json` names items below `Data/`; the root item is the model file (protobuf), beside which
`weights/weight.bin` holds the large constants. A weight file (MIL blob storage, version 2) has a header of 64 bytes
and, at each offset that the program names, a record of 64 bytes: a sentinel, the data type, the size in bytes and the
offset of the values; all little-endian.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from edgewright.backends.coreml_proto import read_model
from edgewright.backends.coreml_records import (
    SUB_BYTE_BITS,
    Blob,
    Constant,
    Model,
    TensorType,
    element_count,
    storage_dtype,
    unpack_bits,
)
from edgewright.core.errors import FormatMismatchError, IntegrityError, UsageError
from edgewright.core.tensors import Array

MANIFEST = "Manifest.json"
MODEL_PATH = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS_PATH = "Data/com.apple.CoreML/weights/weight.bin"
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 128 << 20
MAX_WEIGHT_BYTES = 8 << 30
MAX_ITEMS = 1000
_AUTHOR = "com.apple.CoreML"
_MODEL_PREFIX = "@model_path/"
_HEADER_BYTES = 64
_RECORD = struct.Struct("<IIQQ")
_SENTINEL = 0xDEADBEEF
_VERSION = 2
# Blob data type -> our name of MIL's type.
_BLOB_TYPES: Mapping[int, str] = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    5: "bfloat16",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
    16: "float8e4m3fn",
    17: "float8e5m2",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Package:
    """A package that was read: its program, and where its weights lie.

    Attributes:
        folder: the `.mlpackage`.
        model_path: the model file inside it.
    """

    folder: Path
    model_path: Path
    model: Model

    def value(self, constant: Constant) -> Array | str:
        """Return an array or a text that the program holds, read from the weight file where it lies there.

        Raises:
            IntegrityError: the weight file is missing, or has not what the program says.
            FormatMismatchError: a data type that is not read here.
        """
        content = constant.content
        if isinstance(content, (np.ndarray, str)):
            return content
        if not isinstance(content, Blob) or not isinstance(constant.type, TensorType):
            raise FormatMismatchError("a constant is a list or a tuple where a tensor is expected.")
        return read_blob(self.blob_file(content), content.offset, constant.type)

    def blob_file(self, blob: Blob) -> Path:
        """Return the weight file that `blob` names.

        Raises:
            IntegrityError: it is not a file inside this package.
        """
        if not blob.file.startswith(_MODEL_PREFIX):
            raise IntegrityError(f"a constant lies in {blob.file!r}, which is not inside the package.")
        return _inside(self.model_path.parent, blob.file.removeprefix(_MODEL_PREFIX), self.folder)


def read_package(folder: Path) -> Package:
    """Return the package in `folder`.

    Raises:
        UsageError: no folder, but perhaps a zip file of one.
        FormatMismatchError: a Core ML model of a kind that is not read here.
        IntegrityError: the manifest or the model file is broken, or names a file outside the package.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder. A .mlpackage is one: unpack it first, if it has been zipped."
        )
    path = _inside(folder, _model_item(folder), folder)
    data = _bytes(path, MAX_MODEL_BYTES)
    try:
        model = read_model(data)
    except IntegrityError as err:
        raise IntegrityError(f"{path} cannot be read: {err} Convert the model again.") from err
    except FormatMismatchError as err:
        raise FormatMismatchError(f"{path} is not read: {err}") from err
    return Package(folder=folder, model_path=path, model=model)


def package_files(folder: Path) -> tuple[Path, ...]:
    """Return every file of the package, its manifest first and the others sorted by name.

    Raises:
        IntegrityError: something in it is neither a file nor a folder, or there are too many.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityError(f"{path} is a link or no plain file; a package has none of these.")
        if path.is_file() and path != folder / MANIFEST:
            files.append(path)
        if len(files) > MAX_ITEMS:
            raise IntegrityError(f"{folder} has more than {MAX_ITEMS} files.")
    return (folder / MANIFEST, *files)


def package_of(path: Path) -> Path:
    """Return the `.mlpackage` folder that `path` is, or lies in.

    Raises:
        IntegrityError: there is none.
    """
    for candidate in (path, *path.parents):
        if candidate.suffix == ".mlpackage":
            return candidate
    raise IntegrityError(f"{path} does not lie in a .mlpackage. Build the artifact again.")


def read_blob(path: Path, offset: int, kind: TensorType) -> Array:
    """Return the constant whose record lies at `offset` of the weight file at `path`.

    Raises:
        IntegrityError: the record is not there, or its type or size is not that of `kind`.
        FormatMismatchError: a data type that is not read here.
    """
    count = element_count(kind)
    name = f"{path.name} at offset {offset}"
    try:
        size = path.stat().st_size
        if not _HEADER_BYTES + _RECORD.size <= size <= MAX_WEIGHT_BYTES:
            raise IntegrityError(
                f"{path} has {size} bytes, which no weight file has. Convert the model again."
            )
        with path.open("rb") as stream:
            version = struct.unpack("<II", stream.read(8))[1]
            if version != _VERSION:
                raise IntegrityError(f"{path} is weight storage of version {version}; {_VERSION} is read.")
            if not _HEADER_BYTES <= offset <= size - _RECORD.size:
                raise IntegrityError(f"{name} lies outside the {size} bytes of the file.")
            stream.seek(offset)
            sentinel, code, byte_count, start = _RECORD.unpack(stream.read(_RECORD.size))
            if sentinel != _SENTINEL or _BLOB_TYPES.get(code) != kind.dtype:
                raise IntegrityError(
                    f"{name} holds {_BLOB_TYPES.get(code, f'type {code}')}, but the program expects {kind}."
                )
            stored = storage_dtype(kind.dtype)
            bits = SUB_BYTE_BITS.get(kind.dtype, 8 * stored.itemsize)
            if byte_count != -(-count * bits // 8):
                raise IntegrityError(f"{name} has {byte_count} bytes, but the program expects {kind}.")
            if start < _HEADER_BYTES or start > size - byte_count:
                raise IntegrityError(f"{name} has its values outside the {size} bytes of the file.")
            stream.seek(start)
            raw = stream.read(byte_count)
    except OSError as err:
        raise IntegrityError(f"weight file {path} cannot be read: {err.strerror}.") from err
    if len(raw) != byte_count:
        raise IntegrityError(f"{name} ends after {len(raw)} of {byte_count} bytes: the file is truncated.")
    shape = [size or 0 for size in kind.shape]
    if kind.dtype in SUB_BYTE_BITS:
        return unpack_bits(np.frombuffer(raw, np.uint8), count, kind.dtype).reshape(shape)
    return np.frombuffer(raw, stored.newbyteorder("<")).astype(stored).reshape(shape)


def write_package(folder: Path, model: bytes, weights: Path | None) -> tuple[Path, ...]:
    """Write a package of the model file's bytes and a copy of its weight file; return its files.

    The identifiers in the manifest are made of the content, so that one program always gives one digest.
    """
    model_path, weight_path = folder / MODEL_PATH, folder / WEIGHTS_PATH
    model_path.parent.mkdir(parents=True, exist_ok=True)
    model_path.write_bytes(model)
    identity = hashlib.sha256(model).hexdigest()
    entries = {_identifier(identity, "model"): _item("model.mlmodel", "CoreML Model Specification")}
    if weights is not None:
        weight_path.parent.mkdir(exist_ok=True)
        shutil.copyfile(weights, weight_path)
        entries[_identifier(identity, "weights")] = _item("weights", "CoreML Model Weights")
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": _identifier(identity, "model"),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")
    return package_files(folder)


def _identifier(identity: str, what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{identity} {what}")).upper()


def _item(name: str, description: str) -> dict[str, str]:
    return {"author": _AUTHOR, "description": description, "name": name, "path": f"{_AUTHOR}/{name}"}


def _model_item(folder: Path) -> str:
    """Return the path of the root model below `folder`, as the manifest tells it."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(_bytes(path, MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError) as err:
        raise IntegrityError(f"{path} is not JSON: {err}. Convert the model again.") from err
    entries = manifest.get("itemInfoEntries") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or len(entries) > MAX_ITEMS:
        raise IntegrityError(f"{path} has no table of items. Convert the model again.")
    for entry in entries.values():
        # every path is checked, not only the one that is read: a manifest that points outside is no accident
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise IntegrityError(f"{path} has an item without a path. Convert the model again.")
        _relative(entry["path"])
    root = entries.get(str(manifest.get("rootModelIdentifier")))
    if root is None:
        raise IntegrityError(f"{path} names no root model among its {len(entries)} items.")
    return f"Data/{root['path']}"


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise IntegrityError(f"the package names the file {name[:200]!r}, which lies outside of it.")
    return path


def _inside(parent: Path, name: str, folder: Path) -> Path:
    """Return the file `name` below `parent`; it must be a plain file inside `folder`, links followed."""
    path = parent / _relative(name)
    if not path.is_file():
        raise IntegrityError(
            f"the package {folder.name} has no file {name[:200]!r}. Convert the model again."
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        raise IntegrityError(f"{path} is a link that leads out of the package.")
    return path


def _bytes(path: Path, most: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise IntegrityError(f"{path} has {size} bytes; at most {most} are read.")
        return path.read_bytes()
    except OSError as err:
        raise IntegrityError(f"{path} cannot be read: {err.strerror}. Convert the model again.") from err


def elements(shape: tuple[int | None, ...]) -> int:
    """Return the number of elements of a shape; an unknown size counts as 1."""
    return math.prod(1 if size is None else size for size in shape)
