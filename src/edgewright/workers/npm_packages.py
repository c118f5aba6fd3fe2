"""Packages of npm: pinned by version and digest, fetched by npm itself, and kept as the archives that they are.

A lock `locks/NAME.npm.toml` makes some of them a toolchain, beside those of `environments`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import IntegrityError, UnavailableError, UnknownNameError, UsageError
from edgewright.core.files import write_aside
from edgewright.core.progress import Progress, silent
from edgewright.workers.environments import LOCKS, State, Toolchain, default_root

_LOCK_SUFFIX = ".npm.toml"
_FETCH_TIMEOUT_S = 600
_MAX_ARCHIVE_BYTES = 128 << 20
_MAX_MEMBER_BYTES = 64 << 20
_MAX_MEMBERS = 10_000


@dataclass(frozen=True, kw_only=True)
class NpmPackage:
    """One version of a package.

    Attributes:
        integrity: "sha512-" and the digest of its archive in base64, as the registry gives it.
        licence: an SPDX expression.
    """

    name: str
    version: str
    integrity: str
    licence: str

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:npm/{self.name.replace('@', '%40')}@{self.version}"

    @property
    def archive_name(self) -> str:
        """The file that `npm pack` writes."""
        return f"{self.name.replace('@', '').replace('/', '-')}-{self.version}.tgz"

    @property
    def kept(self) -> Path:
        """Where its archive is kept."""
        return cache_folder() / self.archive_name

    def is_right(self, archive: Path | None = None) -> bool:
        """Return whether `archive`, or the kept one, is the one that was published."""
        archive = archive or self.kept
        return archive.stat().st_size <= _MAX_ARCHIVE_BYTES and _integrity(archive) == self.integrity


def locked(toolchain: str) -> dict[str, NpmPackage]:
    """Return name -> package of the lock `locks/TOOLCHAIN.npm.toml`.

    Raises:
        UnknownNameError: there is no lock of this name.
    """
    if toolchain not in names():
        raise UnknownNameError.of("toolchain", toolchain, names())
    record = tomllib.loads((LOCKS / f"{toolchain}{_LOCK_SUFFIX}").read_text(encoding="utf-8"))
    return {row["name"]: NpmPackage(**row) for row in record["packages"]}


def names() -> list[str]:
    """Return the names of the toolchains that are packages of npm, sorted."""
    return sorted(lock.name.removesuffix(_LOCK_SUFFIX) for lock in LOCKS.glob(f"*{_LOCK_SUFFIX}"))


def look(toolchain: str) -> Toolchain:
    """Return what is found of a toolchain of npm's packages; the digests of its archives are made.

    Raises:
        UnknownNameError: there is no lock of this name.
    """
    packages = tuple(locked(toolchain).values())
    there = [package for package in packages if package.kept.is_file()]
    changed = [package.archive_name for package in there if not package.is_right()]
    state = State.INSTALLED if len(there) == len(packages) else State.INCOMPLETE if there else State.ABSENT
    return Toolchain(
        name=toolchain,
        state=State.CHANGED if changed else state,
        path=cache_folder(),
        versions={package.name: package.version for package in there},
        size_bytes=sum(package.kept.stat().st_size for package in there),
        locked=len(packages),
        detail=", ".join(changed),
    )


def install(toolchain: str, *, progress: Progress = silent) -> Toolchain:
    """Fetch the packages of a toolchain that are not kept, and those that are no longer what was published.

    Args:
        progress: called with (toolchain, step, state).
    Raises:
        UnknownNameError: there is no lock of this name.
        UnavailableError: npm or the network is missing.
        IntegrityError: npm gave another archive than the one that is expected.
    """
    for package in locked(toolchain).values():
        if package.kept.is_file() and package.is_right():
            continue
        step = f"fetch {package.name} {package.version}"
        progress(toolchain, step, "running")
        try:
            package.kept.unlink(missing_ok=True)
            fetch(package)
        except BaseException:
            progress(toolchain, step, "failed")
            raise
        progress(toolchain, step, "done")
    return look(toolchain)


def remove(toolchain: str) -> bool:
    """Delete the archives of a toolchain; return False when there was none.

    Raises:
        UnknownNameError: there is no lock of this name.
    """
    there = [package.kept for package in locked(toolchain).values() if package.kept.is_file()]
    for archive in there:
        archive.unlink()
    return bool(there)


def require(toolchain: str, packages: Iterable[NpmPackage]) -> None:
    """Return when all of `packages`, a part of a toolchain, are here: nothing is fetched behind the user's back.

    Raises:
        UnavailableError: one is not, with the command that brings it.
    """
    missing = [f"{package.name} {package.version}" for package in packages if not package.kept.is_file()]
    if missing:
        raise UnavailableError(
            f"toolchain {toolchain!r} is not installed: {', '.join(missing)} of npm is missing. "
            f"Run: edgewright toolchain install {toolchain}"
        )


def cache_folder() -> Path:
    """Return where archives are kept: `npm` beside the toolchain environments."""
    return default_root() / "npm"


def fetch(package: NpmPackage) -> Path:
    """Return the archive of `package`, which is fetched where it is not kept yet; its digest is always checked.

    Raises:
        UnavailableError: npm or the network is missing.
        IntegrityError: the archive is not the one that is expected.
    """
    kept = package.kept
    if not kept.is_file():
        _fetch(package, kept)
    if not package.is_right():
        raise IntegrityError(
            f"{kept} is not {package.name} {package.version} as it was published. Remove it, and try again."
        )
    return kept


def read_files(package: NpmPackage, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Return the contents of `wanted` (path in the package -> any name), by that name.

    Raises:
        UnavailableError, IntegrityError: as `fetch`; or a file is not in the archive, or too large.
    """
    archive = fetch(package)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive.read_bytes()), mode="r:gz") as tar:
            for number, member in enumerate(tar):
                path = member.name.removeprefix("package/")
                if number >= _MAX_MEMBERS or member.size > _MAX_MEMBER_BYTES:
                    raise IntegrityError(f"{archive.name} has too many files, or too large ones.")
                stream = tar.extractfile(member) if path in wanted and member.isfile() else None
                if stream is not None:
                    found[wanted[path]] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as err:
        raise IntegrityError(f"{archive} cannot be unpacked: {err}. Remove it, and try again.") from err
    missing = sorted(set(wanted.values()) - set(found))
    if missing:
        raise IntegrityError(f"{archive.name} has no {', '.join(missing)}.")
    return found


def _fetch(package: NpmPackage, kept: Path) -> None:
    wanted = f"{package.name}@{package.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError(
            f"{wanted} is needed, which npm fetches, and npm is not installed: apt-get install -y npm. "
            f"Or put the archive, as `npm pack {wanted}` writes it elsewhere, into {kept.parent}."
        )
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        command = [npm, "pack", wanted, "--pack-destination", work, "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(
                command,
                cwd=work,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FETCH_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as err:
            raise UnavailableError(f"npm cannot fetch {wanted}: {err}.") from err
        made = Path(work) / package.archive_name
        if done.returncode != 0 or not made.is_file():
            said = " ".join((done.stderr or done.stdout).split())[:300]
            raise UnavailableError(
                f"npm cannot fetch {wanted}: {said or 'it gave no archive'}. Check the network, or put the archive, "
                f"as `npm pack {wanted}` writes it elsewhere, into {kept.parent}."
            )
        if not package.is_right(made):
            raise IntegrityError(
                f"npm gave another {wanted} than the one that was published. Nothing is kept of it."
            )
        try:
            with write_aside(kept) as aside:
                shutil.copyfile(made, aside)
        except UsageError as err:
            raise UnavailableError(
                f"{kept.parent} cannot be written. Point EDGEWRIGHT_TOOLCHAINS elsewhere."
            ) from err


def _integrity(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
