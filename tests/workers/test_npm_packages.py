"""Packages of npm: pinned by digest, never unpacked blindly, and a plain word where they cannot be had."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from edgewright.core.errors import IntegrityError, UnavailableError, UnknownNameError
from edgewright.workers import npm_packages, toolchains
from edgewright.workers.environments import State
from edgewright.workers.npm_packages import NpmPackage, cache_folder, fetch, locked, read_files, require


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
    core = locked("web")["@litertjs/core"]
    assert core.archive_name == f"litertjs-core-{core.version}.tgz"
    assert core.purl == f"pkg:npm/%40litertjs/core@{core.version}"


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


def npm_that_gives(content: bytes, folder: Path) -> None:
    """Put an `npm` on the path whose `pack` writes one archive, whatever it is asked for."""
    folder.mkdir(exist_ok=True)
    (folder / "archive").write_bytes(content)
    program = folder / "npm"
    program.write_text(f'#!/bin/sh\nexec /bin/cp "{folder}/archive" "$4/some-thing-1.2.3.tgz"\n')
    program.chmod(0o755)


@pytest.fixture
def thing(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NpmPackage:
    """The only package of the toolchain "thing", which npm gives."""
    content = archive({"package/a.js": b"a"})
    package = package_of(content)
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "thing.npm.toml").write_text(
        f'[[packages]]\nname = "{package.name}"\nversion = "1.2.3"\n'
        f'integrity = "{package.integrity}"\nlicence = "MIT"\n'
    )
    monkeypatch.setattr(npm_packages, "LOCKS", locks)
    npm_that_gives(content, tmp_path)
    return package


def test_a_toolchain_is_installed_mended_and_removed(thing: NpmPackage) -> None:
    before = toolchains.look("thing")
    assert (before.state, before.fix) == (State.ABSENT, "edgewright toolchain install thing")
    with pytest.raises(UnavailableError, match="Run: edgewright toolchain install thing"):
        require("thing", [thing])
    steps: list[str] = []
    made = toolchains.install("thing", progress=lambda _, step, state: steps.append(f"{step}: {state}"))
    assert (made.state, made.versions, made.locked) == (State.INSTALLED, {thing.name: "1.2.3"}, 1)
    assert steps == [f"fetch {thing.name} 1.2.3: running", f"fetch {thing.name} 1.2.3: done"]
    require("thing", [thing])
    thing.kept.write_bytes(b"changed")
    assert (toolchains.look("thing").state, toolchains.look("thing").detail) == (
        State.CHANGED,
        thing.archive_name,
    )
    assert toolchains.install("thing").state is State.INSTALLED
    assert toolchains.remove("thing") and not toolchains.remove("thing")
    assert not thing.kept.exists()


def test_what_npm_gives_is_compared_with_the_lock(thing: NpmPackage, tmp_path: Path) -> None:
    npm_that_gives(archive({"package/a.js": b"evil"}), tmp_path)
    with pytest.raises(IntegrityError, match="npm gave another"):
        toolchains.install("thing")
    assert not thing.kept.exists()


def test_names_of_both_kinds_are_known() -> None:
    assert {"tflm", "vela", "web"} <= set(toolchains.names())
    with pytest.raises(UnknownNameError, match="web"):
        toolchains.look("webb")
