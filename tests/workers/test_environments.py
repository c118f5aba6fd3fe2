"""Toolchain environments: made by the real pip from a locked wheel, run by a worker, compared before and after."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from edgewright.core.errors import UnavailableError, UnknownNameError, WorkerError
from edgewright.workers import environments
from edgewright.workers.environments import State
from edgewright.workers.pool import Worker, call_once

_MODULE = """
import pathlib, sys

def where(arguments):
    import edgewright
    return {"python": sys.prefix, "edgewright": edgewright.__file__, "path": sys.path}

def update(arguments):
    info = next(pathlib.Path(__file__).parent.glob("tinytool-*.dist-info"))
    info.rename(info.with_name("tinytool-2.0.dist-info"))
    return {}
"""


def _wheel(folder: Path) -> Path:
    """Write a wheel of one module, as pip wants it."""
    folder.mkdir()
    path = folder / "tinytool-1.0-py3-none-any.whl"
    files = {
        "tinytool.py": _MODULE,
        "tinytool-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinytool\nVersion: 1.0\n",
        "tinytool-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "tinytool-1.0.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()] + [f"{record},,"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, record: "\n".join(lines) + "\n"}.items():
            archive.writestr(name, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Offer one toolchain, "tiny", whose only package is a wheel on disk; return its lock."""
    wheel = _wheel(tmp_path / "wheels")
    locks = tmp_path / "locks"
    locks.mkdir()
    lock = locks / "tiny.txt"
    lock.write_text(f"tinytool==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    monkeypatch.setattr(environments, "LOCKS", locks)
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path / "toolchains"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    environments._lock_digest.cache_clear()
    environments._locked.cache_clear()
    return lock


def test_an_environment_is_made_used_watched_and_removed(tiny: Path) -> None:
    assert environments.look("tiny").state is State.ABSENT
    with pytest.raises(UnavailableError, match="edgewright toolchain install tiny"):
        call_once("tinytool:where", {}, environment="tiny")
    assert not environments.default_root().exists(), "nothing is installed behind the user's back"

    made = environments.install("tiny")
    assert made.state is State.INSTALLED
    assert made.versions == {"tinytool": "1.0"}
    assert made.size_bytes > 0
    assert environments.is_installed("tiny")

    with Worker("tiny", environment="tiny") as worker:
        found = worker.call("tinytool:where", {})
        assert found["python"] == str(made.path)
        assert Path(str(found["edgewright"])) == Path(environments.__file__).parents[1] / "__init__.py"
        outside = [entry for entry in map(str, found["path"]) if "site-packages" in entry]
        assert all(entry.startswith(str(made.path)) for entry in outside), (
            "no package of the parent's is in reach"
        )

        with pytest.raises(UnavailableError, match=r"tinytool 1\.0 -> 2\.0"):
            worker.call("tinytool:update", {})
    assert environments.look("tiny").state is State.CHANGED
    with pytest.raises(UnavailableError, match="changed since it was installed"):
        call_once("tinytool:where", {}, environment="tiny")

    assert environments.install("tiny").versions == {"tinytool": "1.0"}
    assert environments.remove("tiny")
    assert not environments.remove("tiny")
    assert environments.look("tiny").state is State.ABSENT


def test_a_package_that_is_not_the_locked_one_is_not_installed(tiny: Path) -> None:
    tiny.write_text("tinytool==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(UnavailableError, match="tiny"):
        environments.install("tiny")
    assert environments.look("tiny").state is State.ABSENT


def test_an_unknown_toolchain_is_told_with_those_there_are(tiny: Path) -> None:
    with pytest.raises(UnknownNameError, match="tiny"):
        environments.install("tinny")


def test_another_lock_makes_the_environment_outdated(tiny: Path) -> None:
    environments.install("tiny")
    tiny.write_text("# a later version\n" + tiny.read_text())
    environments._lock_digest.cache_clear()
    assert environments.look("tiny").state is State.OUTDATED
    with pytest.raises((UnavailableError, WorkerError), match="made from another lock"):
        call_once("tinytool:where", {}, environment="tiny")


def test_every_lock_names_digests_and_no_index() -> None:
    for name in environments.names():
        text = (environments.LOCKS / f"{name}.txt").read_text(encoding="utf-8")
        options = [line for line in text.splitlines() if line.lstrip().startswith("--")]
        assert {option.split("=")[0].strip() for option in options} <= {"--hash"}
        assert "://" not in "".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        assert text.count("==") <= text.count("--hash=sha256:"), name
