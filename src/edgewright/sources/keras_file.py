"""Keras files read without Keras: the configuration and the shapes of the weights, never their values.

`.keras` is a zip of config.json, metadata.json and model.weights.h5; `.h5` and `.hdf5` hold the configuration as an
attribute. Every size, count and link is checked before the HDF5 library follows it.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgewright.core.errors import (
    FormatMismatchError,
    IntegrityError,
    UnavailableError,
    UsageError,
    first_line,
)

if TYPE_CHECKING:
    import h5py

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MAX_MEMBERS = 10_000
_MAX_CONFIG_BYTES = 64 << 20
_MAX_TOTAL_BYTES = 8 << 30
_MAX_RATIO = 200
_FREE_BYTES = 1 << 20  # below this, a ratio says nothing
_MAX_OBJECTS = 200_000
_MAX_DEPTH = 48
_FIRST_FOREIGN_FILTER = 256  # below it are those of the HDF5 library; others are plug-ins
_LZF = 32000


@dataclass(frozen=True, kw_only=True)
class KerasWeight:
    """A tensor of weights; `owners` are the names that its groups give it, the innermost first."""

    path: str
    owners: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class KerasFile:
    """A whole file; `version` is of the Keras that wrote it."""

    config: Mapping[str, object]
    version: str
    weights: tuple[KerasWeight, ...]
    is_archive: bool

    @property
    def is_legacy(self) -> bool:
        """True when Keras 2 wrote it."""
        return self.version.startswith(("1.", "2."))


def read_keras_file(path: Path) -> KerasFile:
    """Return what the Keras file at `path` holds.

    Raises:
        UsageError: it holds weights alone.
        FormatMismatchError: it is neither a `.keras` archive nor an HDF5 file.
        IntegrityError: truncated, oversized, linked elsewhere, or otherwise not safe to read.
        UnavailableError: h5py is not installed.
    """
    try:
        import h5py  # noqa: F401
    except ImportError as err:
        raise UnavailableError(f"{path} needs h5py to be read; run: pip install 'edgewright[keras]'") from err
    with path.open("rb") as stream:
        head = stream.read(4)
    try:
        if head == b"PK\x03\x04":
            return _read_archive(path)
        if head == b"\x89HDF":
            return _read_hdf5(path)
    except RecursionError as err:
        raise IntegrityError(
            f"{path}: its configuration is nested too deeply. Save the model again."
        ) from err
    raise FormatMismatchError(
        f"{path} is neither a .keras archive nor an HDF5 file; it begins with {head!r}."
    )


def _read_archive(path: Path) -> KerasFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(path, archive)
            config = _json(path, _CONFIG, _member(archive, members[_CONFIG], _MAX_CONFIG_BYTES))
            metadata = _json(path, _METADATA, _member(archive, members[_METADATA], _FREE_BYTES))
            with tempfile.TemporaryFile() as stream:
                with archive.open(members[_WEIGHTS]) as source:
                    _copy(path, source, stream, members[_WEIGHTS].file_size)
                size_bytes = stream.tell()
                with _opened(path, stream) as file:
                    weights = tuple(_weights(path, file, size_bytes))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError) as err:
        raise IntegrityError(f"{path} is not a whole .keras archive: {err}. Save the model again.") from err
    return KerasFile(
        config=config, version=str(metadata.get("keras_version", "3")), weights=weights, is_archive=True
    )


def _checked_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise IntegrityError(f"{path} has {len(infos)} members; at most {_MAX_MEMBERS} are read.")
    members: dict[str, zipfile.ZipInfo] = {}
    total_bytes = 0
    for info in infos:
        name = info.filename
        if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
            raise IntegrityError(f"{path} has a member with the unsafe name {name!r}; it is not read.")
        if name in members:
            raise IntegrityError(f"{path} has the member {name!r} twice; it is not read.")
        if info.flag_bits & 1:
            raise IntegrityError(f"{path}: its member {name!r} is encrypted; it is not read.")
        if info.file_size > max(_FREE_BYTES, _MAX_RATIO * info.compress_size):
            raise IntegrityError(
                f"{path}: its member {name!r} unpacks from {info.compress_size} to {info.file_size} bytes, over "
                f"{_MAX_RATIO} times. It is not read."
            )
        members[name] = info
        total_bytes += info.file_size
    if total_bytes > _MAX_TOTAL_BYTES:
        raise IntegrityError(f"{path} unpacks to {total_bytes} bytes; at most {_MAX_TOTAL_BYTES} are read.")
    missing = [name for name in (_CONFIG, _METADATA, _WEIGHTS) if name not in members]
    if missing:
        raise IntegrityError(
            f"{path} has no {', '.join(missing)}; it is no .keras archive. Save the model again."
        )
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    if info.file_size > most:
        raise IntegrityError(f"{info.filename} has {info.file_size} bytes; at most {most} are read.")
    with archive.open(info) as stream:
        return stream.read(most)


def _copy(path: Path, source: IO[bytes], target: IO[bytes], size_bytes: int) -> None:
    shutil.copyfileobj(source, target, 1 << 20)  # zipfile gives no more than the member's stated size
    if target.tell() != size_bytes:
        raise IntegrityError(f"{path}: {_WEIGHTS} has {target.tell()} bytes, but {size_bytes} are stated.")


def _json(path: Path, name: str, content: bytes) -> dict[str, object]:
    try:
        record = json.loads(content)
    except ValueError as err:
        raise IntegrityError(f"{path}: {name} is no JSON: {err}. Save the model again.") from err
    if not isinstance(record, dict):
        raise IntegrityError(f"{path}: {name} holds {type(record).__name__}, but an object is expected.")
    return record


@contextmanager
def _opened(path: Path, source: Path | IO[bytes]) -> Iterator[h5py.File]:
    import h5py

    try:
        with h5py.File(source, "r") as file:
            yield file
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        UnicodeDecodeError,
        AttributeError,
    ) as err:
        raise IntegrityError(
            f"{path}: its HDF5 part cannot be read: {first_line(err)}. It may be truncated; save the model again."
        ) from err


def _read_hdf5(path: Path) -> KerasFile:
    size_bytes = path.stat().st_size
    with _opened(path, path) as file:
        if "model_config" not in file.attrs:
            raise UsageError(
                f"{path} holds weights without a model. Give the whole model, saved with model.save(...)."
            )
        config = _json(path, "model_config", _attribute(path, file, "model_config"))
        version = "2" if "keras_version" not in file.attrs else ""
        if not version:
            version = _attribute(path, file, "keras_version").decode(errors="replace")
        weights = tuple(_weights(path, file, size_bytes, below="model_weights"))
    return KerasFile(config=config, version=version, weights=weights, is_archive=False)


def _attribute(path: Path, file: h5py.File, name: str) -> bytes:
    stored = file.attrs.get_id(name)
    if stored.get_storage_size() > _MAX_CONFIG_BYTES or stored.shape not in ((), (1,)):
        raise IntegrityError(
            f"{path}: its attribute {name!r} has {stored.get_storage_size()} bytes in the shape {stored.shape}; "
            "a single text is expected. It is not read."
        )
    value = file.attrs[name]
    content = value.encode() if isinstance(value, str) else bytes(value)
    if len(content) > _MAX_CONFIG_BYTES:
        raise IntegrityError(
            f"{path}: {name} has {len(content)} bytes; at most {_MAX_CONFIG_BYTES} are read."
        )
    return content


def _weights(path: Path, file: h5py.File, size_bytes: int, below: str = "") -> Iterator[KerasWeight]:
    """Yield the shapes of the data sets, the whole file checked; `below` leaves out those of other groups."""
    total_bytes = 0
    for name, owners, dataset in _datasets(path, file):
        total_bytes += _checked_bytes(path, name, dataset)
        if total_bytes > _FREE_BYTES + _MAX_RATIO * size_bytes or total_bytes > _MAX_TOTAL_BYTES:
            raise IntegrityError(
                f"{path}: its data sets unpack to over {total_bytes} bytes, from a file of {size_bytes}. It is not "
                "read; save the model again."
            )
        if not below or name.startswith(f"{below}/"):
            yield KerasWeight(path=name, owners=owners, shape=dataset.shape, dtype=str(dataset.dtype))


def _datasets(path: Path, file: h5py.File) -> Iterator[tuple[str, tuple[str, ...], h5py.Dataset]]:
    """Yield name, owners and data set; every object once, links only within the file and never in circles."""
    import h5py

    seen: set[int] = set()
    stack: list[tuple[str, h5py.Group, tuple[str, ...], int]] = [("", file, (), 0)]
    while stack:
        name, group, owners, depth = stack.pop()
        if depth > _MAX_DEPTH or len(seen) > _MAX_OBJECTS:
            raise IntegrityError(f"{path}: its HDF5 groups are too deep or too many. It is not read.")
        for key in group:
            link = group.get(key, getlink=True)
            inner = f"{name}/{key}".lstrip("/")
            if not isinstance(link, h5py.HardLink):
                raise IntegrityError(
                    f"{path}: {inner!r} is a link to elsewhere ({type(link).__name__}); it is not followed."
                )
            found = group[key]
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                raise IntegrityError(
                    f"{path}: {inner!r} is reached twice, a circle or an alias; it is not read."
                )
            seen.add(address)
            if isinstance(found, h5py.Group):
                called = _owner(path, found)
                stack.append((inner, found, (called, *owners) if called else (key, *owners), depth + 1))
            elif isinstance(found, h5py.Dataset):
                yield inner, owners, found


def _owner(path: Path, group: h5py.Group) -> str:
    """Return the layer's name that Keras 3 writes beside a group's variables, or nothing."""
    import h5py

    if "vars" not in group or not isinstance(group.get("vars", getlink=True), h5py.HardLink):
        return ""
    inside = group["vars"]
    if not isinstance(inside, h5py.Group) or "name" not in inside.attrs:
        return ""
    if inside.attrs.get_id("name").get_storage_size() > 1 << 16:
        raise IntegrityError(f"{path}: a layer's name has over {1 << 16} bytes; it is not read.")
    return str(inside.attrs["name"])


def _checked_bytes(path: Path, name: str, dataset: h5py.Dataset) -> int:
    """Return the size of the values in memory."""
    if dataset.is_virtual or dataset.external:
        raise IntegrityError(f"{path}: the values of {name!r} are in another file; they are not read.")
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(index)[0] for index in range(min(plan.get_nfilters(), 32))]
    foreign = [number for number in filters if number >= _FIRST_FOREIGN_FILTER and number != _LZF]
    if foreign:
        raise IntegrityError(f"{path}: {name!r} needs the HDF5 plug-in {foreign[0]}, which is not loaded.")
    return math.prod(dataset.shape or ()) * int(dataset.dtype.itemsize)
