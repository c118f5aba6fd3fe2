"""What Android code is type-checked against: real classes where they are, stubs for the rest, and a word for each."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgewright.core.errors import UnavailableError
from edgewright.deploy import android_classes
from edgewright.deploy.android_classes import (
    LIBRARIES_VARIABLE,
    check_library_pages,
    find_android,
    find_classes,
    measure_runtime,
)

CODE = """
import android.content.Context
import ai.onnxruntime.OrtSession
import androidx.camera.core.Preview
"""


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No SDK, no libraries: not even what this machine has."""
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT", LIBRARIES_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(android_classes, "_DEBIAN_SDK", str(tmp_path / "none"))


def write_jar(path: Path, *classes: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in classes:
            archive.writestr(f"{name}.class", b"")
    return path


def names(paths: tuple[Path, ...]) -> set[str]:
    return {path.name for path in paths}


def test_without_an_sdk_all_is_stubs(tmp_path: Path) -> None:
    found = find_classes(CODE, tmp_path)
    assert found.jars == ()
    assert not found.has_android
    assert {"Context.java", "OrtSession.java", "Preview.java", "CompiledModel.kt"} <= names(found.stubs)
    assert found.told == "against stubs of Android, CameraX, ONNX Runtime"


def test_the_newest_platform_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("android-9", "android-36", "android-23", "android-canary"):
        write_jar(tmp_path / "sdk/platforms" / folder / "android.jar", "android/content/Context")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert find_android() == (tmp_path / "sdk/platforms/android-36/android.jar", 36)


def test_real_classes_take_the_place_of_their_stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jar(tmp_path / "sdk/platforms/android-23/android.jar", "android/content/Context")
    classes = write_jar(tmp_path / "classes.jar", "ai/onnxruntime/OrtSession")
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    with zipfile.ZipFile(libraries / "onnxruntime.aar", "w") as archive:
        archive.write(classes, "classes.jar")
    monkeypatch.setenv("ANDROID_SDK_ROOT", str(tmp_path / "sdk"))
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(libraries))
    found = find_classes(CODE, tmp_path / "work")
    assert [jar.name for jar in found.jars] == ["android.jar", "onnxruntime.jar"]
    assert found.has_android
    assert not {"Context.java", "OrtSession.java"} & names(found.stubs)
    assert "AssetManager.java" in names(found.stubs)  # this jar does not have it
    assert found.told == (
        "against the real classes of Android (API 23), ONNX Runtime, "
        "against stubs of Android, CameraX, ONNX Runtime"  # the jars lack some of their classes
    )


@pytest.mark.parametrize("content", [b"no archive", None])
def test_a_library_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    libraries = tmp_path / "libraries"
    if content is None:
        write_jar(libraries / "empty.aar", "not/in/a/jar")
    else:
        libraries.mkdir()
        (libraries / "broken.aar").write_bytes(content)
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(libraries))
    with pytest.raises(UnavailableError, match=r"is no \.aar with a classes\.jar"):
        find_classes(CODE, tmp_path / "work")


def test_a_folder_without_libraries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    with pytest.raises(UnavailableError, match="Unset it"):
        find_classes(CODE, tmp_path / "work")


def test_a_runtime_that_is_here_is_measured_and_its_pages_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measure_runtime("litert", "arm64-v8a") is None
    assert check_library_pages() == ""
    for name, size in (("litert-2.3.0.aar", 300), ("litert-gpu-2.3.0.aar", 50), ("camera-core-1.6.2.aar", 7)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("jni/arm64-v8a/libone.so", b"x" * size)
            archive.writestr("jni/x86/libone.so", b"x")
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    assert measure_runtime("litert", "arm64-v8a") == (350, "litert-2.3.0.aar, litert-gpu-2.3.0.aar")
    assert measure_runtime("litert", "x86_64") is None
    assert "NOT all for pages of 16 KB" in check_library_pages()
    assert "it is no ELF file" in check_library_pages()
