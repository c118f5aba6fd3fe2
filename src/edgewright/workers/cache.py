"""Finished steps, kept by digest, so that a repeated or interrupted build goes on where it was.

A step is a folder `<root>/<kind>/<key>/` with `record.json` and the step's files. It is made aside and renamed,
so that a folder under its final name is complete; a record whose files changed is dropped, never used.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import EdgewrightError, UsageError
from edgewright.core.files import copy_files, read_json, sha256_of

MAX_CACHE_BYTES = 4 << 30
_RECORD = "record.json"


@functools.cache
def code_digest() -> str:
    """Return a digest of Edgewright's own code: another version of it never reuses a step."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def default_root() -> Path:
    """Return the cache folder: $EDGEWRIGHT_CACHE, or `edgewright` in the user's cache folder."""
    override = os.environ.get("EDGEWRIGHT_CACHE")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgewright"))


@dataclass(frozen=True, kw_only=True)
class Step:
    """A finished step: its JSON record, and its files by name."""

    record: dict[str, object]
    files: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The store of finished steps; `root` None keeps nothing (`--no-cache`)."""

    root: Path | None

    def key(self, kind: str, parts: Mapping[str, object]) -> str:
        """Return the key of a step from everything that decides its outcome."""
        text = json.dumps({"kind": kind, "code": code_digest(), **parts}, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, kind: str, key: str) -> Step | None:
        """Return the finished step, or None when it is not there or no longer what was written."""
        folder = self._folder(kind, key)
        if folder is None or not folder.is_dir():
            return None
        try:
            entry = read_json(folder / _RECORD)
            digests, record = entry["files"], entry["record"]
            if not isinstance(digests, dict) or not isinstance(record, dict):
                raise ValueError("not a step")
            files = {str(name): folder / str(name) for name in digests}
            if any(sha256_of(files[str(name)]) != sha for name, sha in digests.items()):
                raise ValueError("changed")
        except (EdgewrightError, OSError, ValueError, KeyError):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        os.utime(folder)
        return Step(record=record, files=files)

    def put(
        self,
        kind: str,
        key: str,
        record: Mapping[str, object],
        files: Mapping[str, Path] | Sequence[Path] = (),
    ) -> None:
        """Keep a finished step. A cache that cannot be written is no reason to fail the build.

        Args:
            files: under their own names, or by the relative paths that they shall have.
        """
        folder = self._folder(kind, key)
        if folder is None or folder.exists():
            return
        aside: Path | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
            named = files if isinstance(files, Mapping) else {file.name: file for file in files}
            copies = dict(zip(named, copy_files(named, aside), strict=True))
            entry = {"record": dict(record), "files": {name: sha256_of(copies[name]) for name in copies}}
            (aside / _RECORD).write_text(json.dumps(entry, allow_nan=False), encoding="utf-8")
            aside.rename(folder)
        except (OSError, UsageError):
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)

    def prune(self, limit_bytes: int = MAX_CACHE_BYTES) -> None:
        """Delete the steps used longest ago until the cache holds at most `limit_bytes`."""
        if self.root is None or not self.root.is_dir():
            return
        steps = [folder for folder in self.root.glob("*/*") if folder.is_dir()]
        sized = []
        for folder in steps:
            try:
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                sized.append((folder.stat().st_mtime, size, folder))
            except OSError:
                continue
        total = sum(size for _, size, _ in sized)
        for _, size, folder in sorted(sized):
            if total <= limit_bytes:
                break
            shutil.rmtree(folder, ignore_errors=True)
            total -= size

    def _folder(self, kind: str, key: str) -> Path | None:
        return None if self.root is None else self.root / kind / key
