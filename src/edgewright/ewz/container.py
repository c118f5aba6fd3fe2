"""The outside of a `.ewz`: its header, its limits, and the names that it may hold. docs/ewz.md describes the format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from edgewright.core.errors import IntegrityError, UnavailableError
from edgewright.core.files import MAX_MODEL_BYTES

MAGIC = b"EWZ"
VERSION = 1
SUFFIX = ".ewz"
PACKAGES = ("numba", "zstandard")
FRAME_BYTES = 1 << 24  # of content, at most; so this bounds the memory of a reader
MAX_FILES = 1 << 14
MAX_NAME_BYTES = 1 << 10
DIGEST_BYTES = 32
RANGE_DIGEST_BYTES = 4
CHECK_BYTES = 4
# A file of zeros packs to nothing; no model does. What unpacks to more than this needs the caller's word.
MAX_GROWTH = 1 << 10
FREE_BYTES = 64 << 20
_FORBIDDEN = frozenset('\\:*?"<>|')


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of the content: its name relative to the folder of the artifact, with forward slashes."""

    name: str
    size_bytes: int


def require_packages() -> None:
    """Check that what codes `.ewz` is installed.

    Raises:
        UnavailableError: it is not.
    """
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f".ewz needs {' and '.join(missing)}, not installed here. Run: pip install 'edgewright[ewz]'"
        )


def check_entries(entries: Sequence[Entry]) -> None:
    """Check names and sizes: safe relative names in ascending order, no name twice, no file where a folder must be.

    Raises:
        IntegrityError: something else; the text is for the end of a sentence.
    """
    if not 0 < len(entries) <= MAX_FILES:
        raise IntegrityError(f"it holds {len(entries)} files; 1 to {MAX_FILES} are possible")
    names = [entry.name for entry in entries]
    for name in names:
        if not is_safe_name(name):
            raise IntegrityError(f"it names a file {name[:80]!r}, which is no safe relative name")
    if any(first >= second for first, second in pairwise(names)):
        raise IntegrityError("its file names are not in ascending order, or one is there twice")
    known = set(names)
    for name in names:
        for parent in PurePosixPath(name).parents:
            if str(parent) in known:
                raise IntegrityError(f"it names {str(parent)[:80]!r} as a file and as a folder")
    if sum(entry.size_bytes for entry in entries) > MAX_MODEL_BYTES:
        raise IntegrityError(f"it promises more than {MAX_MODEL_BYTES} bytes")


def is_safe_name(name: str) -> bool:
    """Say whether `name` is a plain relative path that stays inside the folder it is unpacked to."""
    if not 0 < len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES or not name.isprintable():
        return False
    if name.startswith("/") or _FORBIDDEN & set(name):
        return False
    return all(0 < len(part) <= 255 and part not in (".", "..") for part in name.split("/"))


def header_bytes(entries: Sequence[Entry], digest: bytes) -> bytes:
    """Return the header."""
    made = bytearray(MAGIC + bytes([VERSION]) + varint(len(entries)))
    for entry in entries:
        name = entry.name.encode()
        made += varint(len(name)) + name + varint(entry.size_bytes)
    return bytes(made) + digest


def varint(value: int) -> bytes:
    """Return `value` >= 0 as 7 bits a byte, lowest first; the top bit says that more follow."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def content_digest(entries: Sequence[Entry], digests: Sequence[bytes]) -> bytes:
    """Return the digest in the header: of one file its SHA-256, of several that of `sha256sum`'s lines.

    It is what an artifact's record has, where no two files in different folders have the same name.
    """
    if len(entries) == 1:
        return digests[0]
    lines = "".join(f"{d.hex()}  {e.name}\n" for e, d in zip(entries, digests, strict=True))
    return hashlib.sha256(lines.encode()).digest()
