"""Pages of shared libraries: what an ELF file asks for, read from its program headers."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

PAGE_BYTES = 16_384
_MAGIC = b"\x7fELF"
_LOAD = 1
_MAX_HEADERS = 128
_MAX_ENTRIES = 10_000
_MAX_LIBRARY_BYTES = 512 << 20
_HEAD_BYTES = 64 << 10  # program headers follow the file's header in every library that a linker wrote
_ARCHIVES = (".aar", ".apk", ".aab", ".zip")


class ElfError(ValueError):
    """The bytes are no ELF file that can be read."""


def load_alignment(head: bytes) -> int:
    """Return the smallest alignment in bytes of the segments that are loaded.

    Args:
        head: the beginning of the file, up to the end of its program headers.
    Raises:
        ElfError: no ELF file, a damaged one, or one with its headers elsewhere. Layout: System V ABI, chapters 4 and 5.
    """
    if len(head) < 64 or head[:4] != _MAGIC or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise ElfError("it is no ELF file")
    order = "<" if head[5] == 1 else ">"
    is_64 = head[4] == 2
    if is_64:
        (start,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        least, kind_at, align_at, align = 56, 0, 48, "Q"
    else:
        (start,) = struct.unpack_from(f"{order}I", head, 28)
        size, count = struct.unpack_from(f"{order}HH", head, 42)
        least, kind_at, align_at, align = 32, 0, 28, "I"
    if size < least or not 1 <= count <= _MAX_HEADERS or start + size * count > len(head):
        raise ElfError(
            f"its {count} program headers of {size} bytes at {start} are not where they can be read"
        )
    found = []
    for index in range(count):
        at = start + index * size
        (kind,) = struct.unpack_from(f"{order}I", head, at + kind_at)
        if kind == _LOAD:
            found.append(struct.unpack_from(f"{order}{align}", head, at + align_at)[0])
    if not found:
        raise ElfError("it has nothing that is loaded")
    return int(min(found))


def page_problem(name: str, head: bytes) -> str:
    """Return why a device with pages of 16 KB does not load the library; empty where it does."""
    try:
        alignment = load_alignment(head)
    except ElfError as err:
        return f"{name}: {err}"
    if alignment < PAGE_BYTES or alignment % PAGE_BYTES:
        return (
            f"{name} is laid out for pages of {alignment} bytes; {PAGE_BYTES} are expected. Link it with "
            f"-Wl,-z,max-page-size={PAGE_BYTES}."
        )
    return ""


def page_problems(folder: Path) -> tuple[int, list[str]]:
    """Return how many 64-bit libraries are in `folder`, in its .aar and .apk too, and a line for each wrong one.

    Pages of 16 KB are a matter of arm64-v8a and x86_64; what lies in a folder of a 32-bit ABI is left out.
    """
    count, problems = 0, []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".so" and not _is_32_bit(name):
            with path.open("rb") as stream:
                problems.append(page_problem(name, stream.read(_HEAD_BYTES)))
            count += 1
        elif path.suffix in _ARCHIVES:
            found, said = _archive_problems(name, path)
            count += found
            problems += said
    return count, [problem for problem in problems if problem]


def _archive_problems(name: str, path: Path) -> tuple[int, list[str]]:
    count, problems = 0, []
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                return 0, [f"{name} has {len(entries)} entries; at most {_MAX_ENTRIES} are looked at"]
            for entry in entries:
                if not entry.filename.endswith(".so") or _is_32_bit(entry.filename):
                    continue
                count += 1
                shown = f"{name}: {ascii(entry.filename)[1:-1]}"
                if entry.file_size > _MAX_LIBRARY_BYTES:
                    problems.append(
                        f"{shown} has {entry.file_size} bytes; at most {_MAX_LIBRARY_BYTES} are read"
                    )
                    continue
                with archive.open(entry) as stream:
                    problems.append(page_problem(shown, stream.read(_HEAD_BYTES)))
                if path.suffix == ".apk" and entry.compress_type == zipfile.ZIP_STORED:
                    problems.append(_offset_problem(shown, entry, raw.fileno()))
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        ValueError,
        EOFError,
    ) as err:
        problems.append(f"{name} cannot be read: {str(err)[:120]}")
    return count, problems


def _offset_problem(shown: str, entry: zipfile.ZipInfo, handle: int) -> str:
    """Return why a library that is loaded out of an .apk cannot be: it has to begin at a page."""
    local = os.pread(handle, 30, entry.header_offset)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        return f"{shown} has no header in the archive"
    name_bytes, extra_bytes = struct.unpack_from("<HH", local, 26)
    offset = entry.header_offset + 30 + name_bytes + extra_bytes
    if offset % PAGE_BYTES:
        return f"{shown} begins at {offset}, which is no multiple of {PAGE_BYTES}. Run zipalign -P 16."
    return ""


def _is_32_bit(name: str) -> bool:
    return any(part in ("armeabi-v7a", "x86") for part in name.split("/"))
