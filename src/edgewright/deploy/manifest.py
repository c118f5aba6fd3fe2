"""`manifest.json` of a bundle: what it is, what it was made of, and the digest of every file.

Beside it lie `manifest.sha256`, which `sha256sum -c` reads and which shows damage, and, where the maker has a key,
`manifest.sig`, which shows who wrote it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.files import sha256_of, write_aside, write_json, write_text

MANIFEST_NAME = "manifest.json"
DIGEST_NAME = "manifest.sha256"
SIGNATURE_NAME = "manifest.sig"
MANIFEST_VERSION = 1
_VERSION_KEY = "edgewright_bundle"
_OWN = (MANIFEST_NAME, DIGEST_NAME, SIGNATURE_NAME)
_MAX_FILES = 20_000
_MAX_BYTES = 16 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
# What the platforms' tools and systems leave in a project that is built or opened where it lies. Not __pycache__:
# Python runs what is in there instead of the source that was checked.
_LEFT_FOLDERS = frozenset(
    "build .build .gradle .cxx .kotlin .idea .swiftpm DerivedData xcuserdata .venv node_modules .git .vscode".split()
)
_LEFT_FILES = frozenset(
    "gradlew gradlew.bat gradle-wrapper.jar local.properties Package.resolved .DS_Store".split()
)
_LEFT_SUFFIXES = (".egg-info", ".xcodeproj", ".xcworkspace")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        data: the bytes of the file, of which `manifest.sig` is the signature.
        record: what they say.
        files: path in the bundle, with forward slashes -> SHA-256 in hex.
    """

    data: bytes
    record: Mapping[str, object]
    files: Mapping[str, str]


def write_manifest(
    folder: Path, record: Mapping[str, object], *, sign: Callable[[bytes], bytes] | None = None
) -> None:
    """Write `manifest.json` over all files of `folder`, and what lies beside it.

    Args:
        record: what stands above the digests.
        sign: gives the signature of bytes; without it there is no `manifest.sig`.
    Raises:
        UsageError: a file has a name that no manifest takes.
    """
    names = list_files(folder)
    for name in names:
        if not is_inside(name):
            raise UsageError(
                f"{name!r:.80} cannot be the name of a file in a bundle. Rename it, and try again."
            )
    digests = {name: sha256_of(folder / name) for name in names}
    path = folder / MANIFEST_NAME
    write_json(path, {_VERSION_KEY: MANIFEST_VERSION, **record, "files": digests})
    write_text(folder / DIGEST_NAME, f"{sha256_of(path)}  {MANIFEST_NAME}\n")
    if sign is not None:
        with write_aside(folder / SIGNATURE_NAME) as aside:
            aside.write_bytes(sign(path.read_bytes()))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the bundle in `folder`, read strictly: no key twice, no path that leaves the folder.

    Raises:
        UsageError: there is none.
        IntegrityError: it is none that a bundle has.
    """
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise UsageError(
            f"{folder} holds no {MANIFEST_NAME}: it is no bundle. Give the folder that `bundle` wrote."
        )
    data = read_bounded(path, _MAX_BYTES)
    record = _parse(path, data)
    files = record.get("files")
    if record.get(_VERSION_KEY) != MANIFEST_VERSION or not isinstance(files, dict) or not files:
        raise IntegrityError(
            f"{path} is no manifest of a bundle of version {MANIFEST_VERSION}. Make the bundle again."
        )
    if len(files) > _MAX_FILES:
        raise IntegrityError(f"{path} names {len(files)} files; at most {_MAX_FILES} are expected.")
    for name, digest in files.items():
        if not is_inside(name) or name in _OWN:
            raise IntegrityError(f"{path} names {name!r:.80}, which is no path of a file in the bundle.")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise IntegrityError(f"{path} has {digest!r:.80} for {name!r:.80}; a SHA-256 in hex is expected.")
    return Manifest(data=data, record=record, files=files)


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of the file at `path`.

    Raises:
        IntegrityError: it cannot be read, or has more than `most_bytes`.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(most_bytes + 1)
    except OSError as err:
        raise IntegrityError(f"{path} cannot be read: {err.strerror or err}.") from err
    if len(data) > most_bytes:
        raise IntegrityError(f"{path} has more than {most_bytes} bytes; it is none that a bundle has.")
    return data


def is_inside(name: str) -> bool:
    """Return whether `name` is a relative path with forward slashes, without detours, that stays in its folder."""
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name
        and name.isprintable()
        and "\\" not in name
    )


def digest_problem(folder: Path, manifest: Manifest) -> str:
    """Return how the manifest is not the one that `manifest.sha256` describes; empty where it is."""
    path = folder / DIGEST_NAME
    if path.is_symlink() or not path.is_file():
        return f"{DIGEST_NAME} is missing"
    want = f"{hashlib.sha256(manifest.data).hexdigest()}  {MANIFEST_NAME}\n".encode()
    if read_bounded(path, 4096) != want:
        return f"{MANIFEST_NAME} has the digest {want[:16].decode()}..., but {DIGEST_NAME} says otherwise"
    return ""


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return a line for each file that is missing, no file, or not the one that the manifest describes."""
    changed = []
    for name, digest in manifest.files.items():
        path = folder / name
        if link := _link_in(folder, name):
            changed.append(f"{name} is no file of the bundle: {link} is a symbolic link")
        elif not path.is_file():
            changed.append(f"{name} is missing")
        elif (found := sha256_of(path)) != digest:
            changed.append(f"{name} has the digest {found[:16]}..., but {digest[:16]}... is expected")
    return changed


def added_files(folder: Path, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return what lies in `folder` and is not in the manifest: what does not belong, and what tools leave there.

    Folders count by what is in them; symbolic links and special files count as files.
    """
    added: list[str] = []
    left: list[str] = []
    known = {*manifest.files, *_OWN}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in known and (path.is_symlink() or not path.is_dir()):
            (left if _is_left(name) else added).append(name)
    return sorted(added), sorted(left)


def list_files(folder: Path) -> list[str]:
    """Return all files of a bundle but its manifest and what signs that, relative, with forward slashes, sorted."""
    found = sorted(
        str(PurePosixPath(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file()
    )
    return [name for name in found if name not in _OWN]


def _parse(path: Path, data: bytes) -> dict[str, object]:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a key stands there twice")
        return made

    def no_number(text: str) -> NoReturn:
        raise ValueError(f"{text} is no number")

    try:
        record = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError) as err:
        raise IntegrityError(f"{path} cannot be read as JSON: {err}. Make the bundle again.") from err
    if not isinstance(record, dict):
        raise IntegrityError(f"{path} holds {type(record).__name__}, but a JSON object is expected.")
    return record


def _link_in(folder: Path, name: str) -> str:
    """Return the part of the path that is a symbolic link; empty where none is."""
    path = PurePosixPath(name)
    parts = [*reversed(path.parents), path][1:]
    return next((str(part) for part in parts if (folder / part).is_symlink()), "")


def _is_left(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        not _LEFT_FOLDERS.isdisjoint(path.parts)
        or path.name in _LEFT_FILES
        or any(part.endswith(_LEFT_SUFFIXES) for part in path.parts)
    )
