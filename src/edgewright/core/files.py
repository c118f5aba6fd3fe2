"""Digests, and files that appear under their final name only when complete."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgewright.core.errors import IntegrityError, UsageError

_CHUNK_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)
MAX_MODEL_BYTES = 8 << 30
MAX_JSON_BYTES = 64 << 20


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of the file at `path`."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_files(paths: Sequence[Path]) -> str:
    """Return the digest of an artifact.

    One file: its own SHA-256. Several (OpenVINO's .xml and .bin): the SHA-256 of the lines
    "<sha256>  <name>\\n", sorted by name, which is what `sha256sum NAME... | sha256sum` prints.
    """
    if len(paths) == 1:
        return sha256_of(paths[0])
    lines = sorted((path.name, sha256_of(path)) for path in paths)
    return hashlib.sha256("".join(f"{sha}  {name}\n" for name, sha in lines).encode()).hexdigest()


def require_model_file(path: Path) -> None:
    """Check that `path` is a readable, non-empty file of a sane size.

    Raises:
        UsageError: it is not.
    """
    if not path.exists():
        raise UsageError(f"model file {path} does not exist. Check the path.")
    if not path.is_file():
        raise UsageError(f"{path} is not a file, but a model file is expected.")
    size = path.stat().st_size
    if size == 0:
        raise UsageError(f"model file {path} is empty. Export it again.")
    if size > MAX_MODEL_BYTES:
        raise UsageError(f"model file {path} has {size} bytes; at most {MAX_MODEL_BYTES} are read.")
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as err:
        raise UsageError(f"model file {path} cannot be read: {err.strerror}.") from err


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as err:
        raise UsageError(_cannot_write(path, err)) from err
    aside = Path(name)
    try:
        yield aside
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        aside.replace(path)
    except OSError as err:
        raise UsageError(_cannot_write(path, err)) from err
    finally:
        aside.unlink(missing_ok=True)


def _cannot_write(path: Path, err: OSError) -> str:
    return f"cannot write {path}: {err.strerror or err}. Free space or choose another folder with --out."


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def work_folder() -> Iterator[Path]:
    """Give a temporary folder and delete it afterwards.

    Raises:
        UsageError: it cannot be made, or a file in it cannot be written (full disk, quota, read-only).
    """
    try:
        with tempfile.TemporaryDirectory(prefix="edgewright-", ignore_cleanup_errors=True) as name:
            yield Path(name)
    except OSError as err:
        if err.errno is not None and err.errno not in _NO_ROOM:
            raise
        why = err.strerror or f"No space left on device ({err})"  # numpy tells bytes, but no errno
        raise UsageError(
            f"a temporary file cannot be written in {tempfile.gettempdir()}: {why}. "
            "Free space there, or point TMPDIR elsewhere."
        ) from err


def write_json(path: Path, record: object) -> None:
    """Write `record` to `path` as JSON, atomically. NaN and infinity are our own bug."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in the file at `path`.

    Raises:
        IntegrityError: missing, larger than 64 MiB, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise IntegrityError(
                f"{path} is larger than {MAX_JSON_BYTES} bytes; it is not one of our JSON files."
            )
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise IntegrityError(f"{path} cannot be read as JSON: {err}. Run the build again.") from err
    if not isinstance(record, dict):
        raise IntegrityError(f"{path} holds {type(record).__name__}, but a JSON object is expected.")
    return record


def copy_files(files: Mapping[str, Path], folder: Path) -> tuple[Path, ...]:
    """Copy files, given by the relative path that each shall have, into `folder`, each atomically.

    Returns:
        The new paths in the same order.
    """
    copies = []
    for name, file in files.items():
        with write_aside(folder / name) as aside:
            shutil.copyfile(file, aside)
        copies.append(folder / name)
    return tuple(copies)
