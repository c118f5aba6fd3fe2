"""Packages of npm: pinned by digest, never unpacked blindly, and a plain word where they cannot be had."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from edgewright.core.errors import IntegrityError, UnavailableError
from edgewright.deploy.npm_packages import LITERTJS_CORE, NpmPackage, cache_folder, fetch, read_files


def archive(files: dict[str, bytes]) -> bytes:
    """Return a package as npm packs it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def package_of(content: bytes) -> NpmPackage:
    digest = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    return NpmPackage(name="@some/thing", version="1.2.3", integrity=digest, licence="MIT")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, empty; no npm is found."""
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path / "toolchains"))
    monkeypatch.setenv("PATH", str(tmp_path))
    cache_folder().mkdir(parents=True)
    return cache_folder()


def test_names_are_those_of_npm() -> None:
    assert LITERTJS_CORE.archive_name == f"litertjs-core-{LITERTJS_CORE.version}.tgz"
    assert LITERTJS_CORE.purl == f"pkg:npm/%40litertjs/core@{LITERTJS_CORE.version}"


def test_a_kept_archive_is_used(kept: Path) -> None:
    content = archive({"package/dist/a.js": b"a", "package/b.js": b"b", "../c.js": b"c"})
    package = package_of(content)
    (kept / package.archive_name).write_bytes(content)
    assert fetch(package) == kept / "some-thing-1.2.3.tgz"
    assert read_files(package, {"dist/a.js": "x/a.js"}) == {"x/a.js": b"a"}
    with pytest.raises(IntegrityError, match=r"has no missing\.js"):
        read_files(package, {"dist/a.js": "a.js", "dist/missing.js": "missing.js"})


def test_another_archive_is_refused(kept: Path) -> None:
    content = archive({"package/a.js": b"a"})
    package = package_of(content)
    (kept / package.archive_name).write_bytes(archive({"package/a.js": b"evil"}))
    with pytest.raises(IntegrityError, match="as it was published"):
        read_files(package, {"a.js": "a.js"})


def test_what_is_no_archive_is_refused(kept: Path) -> None:
    package = package_of(b"no archive")
    (kept / package.archive_name).write_bytes(b"no archive")
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        read_files(package, {"a.js": "a.js"})


def test_without_npm_the_way_out_is_said(kept: Path) -> None:
    with pytest.raises(UnavailableError, match=r"npm pack @some/thing@1\.2\.3"):
        fetch(package_of(b""))
