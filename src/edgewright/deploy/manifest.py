"""Writing the manifest of a bundle, and holding a folder against it; `bundle_files` reads one.

Beside it lie `manifest.sha256`, which `sha256sum -c` reads and which shows damage, and, where the maker has a key,
`manifest.sig`, which shows who wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from edgewright.bundle_files import (
    DIGEST_NAME,
    MANIFEST_NAME,
    MANIFEST_VERSION,
    OWN_NAMES,
    SIGNATURE_NAME,
    VERSION_KEY,
    Manifest,
    is_inside,
    read_bounded,
)
from edgewright.core.errors import UsageError
from edgewright.core.files import sha256_of, write_aside, write_json, write_text

# What the platforms' tools and systems leave in a project that is built or opened where it lies. Not __pycache__:
# Python runs what is in there instead of the source that was checked.
_LEFT_FOLDERS = frozenset(
    "build .build .gradle .cxx .kotlin .idea .swiftpm DerivedData xcuserdata .venv node_modules .git .vscode".split()
)
_LEFT_FILES = frozenset(
    "gradlew gradlew.bat gradle-wrapper.jar local.properties Package.resolved .DS_Store".split()
)
_BUILT_FOR_THIS_MACHINE = "/lib/own/"  # the processing, where `install.sh` of a Linux bundle builds it
_LEFT_SUFFIXES = (".egg-info", ".xcodeproj", ".xcworkspace")


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
    write_json(path, {VERSION_KEY: MANIFEST_VERSION, **record, "files": digests})
    write_text(folder / DIGEST_NAME, f"{sha256_of(path)}  {MANIFEST_NAME}\n")
    if sign is not None:
        with write_aside(folder / SIGNATURE_NAME) as aside:
            aside.write_bytes(sign(path.read_bytes()))


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
    known = {*manifest.files, *OWN_NAMES}
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
    return [name for name in found if name not in OWN_NAMES]


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
        or _BUILT_FOR_THIS_MACHINE in name
        or any(part.endswith(_LEFT_SUFFIXES) for part in path.parts)
    )
