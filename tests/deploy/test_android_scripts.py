"""Gradle's files of an Android bundle, checked without Gradle: a name that is not in the catalog, a broken manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.deploy import kotlin
from edgewright.deploy.android import VERSIONS
from edgewright.deploy.android_classes import find_android
from edgewright.deploy.android_scripts import check_manifests, write_scripts
from edgewright.deploy.templates import render

VALUES: dict[str, object] = {
    "name": "ColourFinder", "package": "com.example.colours", "version": "1.0.0", "versions": dict(VERSIONS),
    "runtime": "litert", "chain": ("NPU", "GPU", "CPU"), "abis": ["arm64-v8a"], "sample": "camera",
}  # fmt: skip
FILES = {
    "settings.gradle.kts": "settings.gradle.kts",
    "build.gradle.kts": "build.gradle.kts",
    "app/build.gradle.kts": "app.gradle.kts",
    "library/build.gradle.kts": "library.gradle.kts",
    "gradle/libs.versions.toml": "libs.versions.toml",
    "app/src/main/AndroidManifest.xml": "AndroidManifest.xml",
    "library/src/main/AndroidManifest.xml": "LibraryManifest.xml",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What Gradle reads of a project."""
    for name, template in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(f"android/{template}.j2", VALUES))
    return tmp_path / "project"


def change(path: Path, right: str, wrong: str) -> None:
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))


def check(project: Path, work: Path) -> str:
    android = find_android()
    return check_manifests(project, "com.example.colours", "26", "36", android[0] if android else None, work)


def test_the_catalog_becomes_accessors(project: Path, tmp_path: Path) -> None:
    catalog = next(
        path for path in write_scripts(project, tmp_path / "work") if path.name == "Catalog.kt"
    ).read_text()
    assert "val camera = CatalogCamera()" in catalog
    assert "class CatalogLitert : Library() {\n    val gpu = Library()" in catalog
    assert (
        "class PluginsOfCatalogAndroid {\n    val application = Plugin()\n    val library = Plugin()"
        in catalog
    )


def test_a_version_that_is_not_there_is_refused(project: Path, tmp_path: Path) -> None:
    change(project / "gradle/libs.versions.toml", 'version.ref = "camerax"', 'version.ref = "camera"')
    with pytest.raises(ConversionError, match=r"libs\.versions\.toml: libraries 'camera-camera2'"):
        write_scripts(project, tmp_path / "work")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "wrong", "message"),
    [
        ("app/build.gradle.kts", "", "", ""),
        ("app/build.gradle.kts", "libs.camera.view", "libs.camera.preview", "unresolved reference 'preview'"),
        ("library/build.gradle.kts", "minSdk = 26", 'minSdk = "26"', "mismatch"),
        ("settings.gradle.kts", "    repositories {", "    repositories (", "error:"),
    ],
)
def test_scripts_are_type_checked(
    project: Path, tmp_path: Path, file: str, right: str, wrong: str, message: str
) -> None:
    try:
        kotlin.compiler_folder()
    except UnavailableError as err:
        pytest.skip(str(err))
    change(project / file, right, wrong)
    sources = write_scripts(project, tmp_path / "work")
    if not message:
        kotlin.compile_kotlin(sources, tmp_path / "classes", what="Gradle's scripts")
        return
    with pytest.raises(ConversionError, match=message):
        kotlin.compile_kotlin(sources, tmp_path / "classes", what="Gradle's scripts")


def test_a_manifest_that_is_no_xml_is_refused(project: Path, tmp_path: Path) -> None:
    change(project / "app/src/main/AndroidManifest.xml", "</application>", "")
    with pytest.raises(ConversionError, match="is no XML"):
        check(project, tmp_path)


def test_without_aapt2_it_is_said(project: Path, tmp_path: Path) -> None:
    assert check_manifests(project, "com.example.colours", "26", "36", None, tmp_path).startswith(
        "not linked here"
    )


def test_the_manifest_links_and_a_wrong_theme_does_not(project: Path, tmp_path: Path) -> None:
    if shutil.which("aapt2") is None or find_android() is None:
        pytest.skip("aapt2 or an android.jar is not here")
    assert "linked by aapt2" in check(project, tmp_path)
    change(
        project / "app/src/main/AndroidManifest.xml", "Theme.Material.NoActionBar", "Theme.Material.Nobody"
    )
    with pytest.raises(ConversionError, match="does not link"):
        check(project, tmp_path)
