"""`manifest.json` of a bundle: what it is, what it was made of, and the digest of every file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.files import read_json, sha256_of, write_json

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
_VERSION_KEY = "edgewright_bundle"
_MAX_FILES = 20_000


def write_manifest(folder: Path, record: Mapping[str, object]) -> None:
    """Write `manifest.json` over all files of `folder`; `record` is what stands above the digests."""
    digests = {name: sha256_of(folder / name) for name in list_files(folder)}
    write_json(folder / MANIFEST_NAME, {_VERSION_KEY: MANIFEST_VERSION, **record, "files": digests})


def read_manifest(folder: Path) -> dict[str, object]:
    """Return the manifest of the bundle in `folder`.

    Raises:
        UsageError: there is none.
        IntegrityError: it is none that a bundle has, or names files outside the folder.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no {MANIFEST_NAME}: it is no bundle. Give the folder that `bundle` wrote."
        )
    record = read_json(path)
    files = record.get("files")
    if record.get(_VERSION_KEY) != MANIFEST_VERSION or not isinstance(files, dict) or len(files) > _MAX_FILES:
        raise IntegrityError(
            f"{path} is no manifest of a bundle of version {MANIFEST_VERSION}. Make the bundle again."
        )
    for name in files:
        parts = PurePosixPath(str(name))
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise IntegrityError(f"{path} names {str(name)!r:.80}, which is outside the bundle.")
    return record


def changed_files(folder: Path, record: Mapping[str, object]) -> list[str]:
    """Return a line for each file that is missing, no file, or not the one that the manifest describes."""
    files = record["files"]
    assert isinstance(files, dict)
    changed = []
    for name, digest in files.items():
        path = folder / str(name)
        if path.is_symlink() or not path.is_file():
            changed.append(f"{name} is missing")
        elif (found := sha256_of(path)) != digest:
            changed.append(f"{name} has the digest {found[:16]}..., but {str(digest)[:16]}... is expected")
    return changed


def list_files(folder: Path) -> list[str]:
    """Return all files of a bundle but its manifest, relative, with forward slashes, sorted."""
    found = sorted(
        str(PurePosixPath(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file()
    )
    return [name for name in found if name != MANIFEST_NAME]
