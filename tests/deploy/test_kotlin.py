"""The Kotlin compiler: which Java it takes, and what is said where it cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.core.errors import UnavailableError
from edgewright.deploy import kotlin


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('openjdk version "11.0.25" 2024-10-15', "is Java 11, and Kotlin is compiled for Java 17"),
        ('java version "1.8.0_412"', "is Java 8, and Kotlin is compiled for Java 17"),
        ("no version at all", "does not say its version"),
    ],
)
def test_an_old_java_is_refused_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UnavailableError, match=message):
        kotlin.compiler_folder()


def test_without_java_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt-get install -y openjdk-17-jdk-headless"):
        kotlin.compiler_folder()


def test_without_the_toolchain_its_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"21\" 2023-09-19' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path))
    with pytest.raises(UnavailableError, match="edgewright toolchain install kotlin"):
        kotlin.compiler_folder()
