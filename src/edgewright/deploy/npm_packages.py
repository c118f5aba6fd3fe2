"""JavaScript packages that a bundle ships: pinned by version and digest, fetched by npm, kept in a cache."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import IntegrityError, UnavailableError, UsageError
from edgewright.core.files import write_aside
from edgewright.workers.environments import default_root

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


ONNXRUNTIME_WEB = NpmPackage(
    name="onnxruntime-web",
    version="1.30.0",
    integrity="sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    licence="MIT",
)
LITERTJS_CORE = NpmPackage(
    name="@litertjs/core",
    version="2.5.3",
    integrity="sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    licence="Apache-2.0",
)
LITERTJS_WASM_UTILS = NpmPackage(
    name="@litertjs/wasm-utils",
    version="2.5.3",
    integrity="sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
    licence="Apache-2.0",
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
    kept = cache_folder() / package.archive_name
    if not kept.is_file():
        _fetch(package, kept)
    if kept.stat().st_size > _MAX_ARCHIVE_BYTES or _integrity(kept) != package.integrity:
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
        try:
            with write_aside(kept) as aside:
                shutil.copyfile(made, aside)
        except UsageError as err:
            raise UnavailableError(
                f"{kept.parent} cannot be written. Point EDGEWRIGHT_TOOLCHAINS elsewhere."
            ) from err


def _integrity(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
