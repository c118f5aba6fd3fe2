"""The JNI library of an Android bundle: for each of Android's ABIs, by its own CMakeLists.txt, with pages of 16 KB."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tests.colour_model import colour_specification, write_colour_model

from edgewright.core.errors import ConversionError
from edgewright.deploy import android, android_native
from edgewright.deploy.android import AndroidPlatform
from edgewright.deploy.bundle import BundleRequest, make_bundle
from edgewright.deploy.elf import PAGE_BYTES, load_alignment
from edgewright.processing.specification import write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MACHINES = {"arm64-v8a": 183, "x86_64": 62, "armeabi-v7a": 40, "x86": 3}  # e_machine of the System V ABI
needs_clang = pytest.mark.skipif(
    bool(android_native.unbuildable_for_android()), reason=android_native.unbuildable_for_android()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose library is not built yet."""
    source = tmp_path_factory.mktemp("colours")
    write_specification(colour_specification(), source)
    write_colour_model(source / "colours.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AndroidPlatform, "prove", lambda self, content, folder: ())
        patch.setattr(android_native, "unbuildable_for_android", lambda: "left out")
        request = BundleRequest(source=source / "colours.onnx", platform="android", name="ColourFinder")
        return make_bundle(request, source / "out").folder


@pytest.mark.slow
@needs_clang
@pytest.mark.parametrize("abi", MACHINES)
def test_the_library_is_built_for_every_abi(folder: Path, tmp_path: Path, abi: str) -> None:
    library = android_native.build_for_abi(folder, tmp_path / "build", abi)
    head = library.read_bytes()
    assert struct.unpack_from("<H", head, 18) == (MACHINES[abi],)
    assert load_alignment(head) >= PAGE_BYTES
    assert b"JNI_OnLoad" in head
    assert android_native.measure_abis(folder, [abi]) == {abi: len(head)}


@pytest.mark.slow
@needs_clang
def test_a_library_for_small_pages_is_refused(folder: Path, tmp_path: Path) -> None:
    lists = folder / "library/src/main/cpp/CMakeLists.txt"
    right = lists.read_text()
    lists.write_text(right.replace("max-page-size=16384", "max-page-size=4096"))
    try:
        with pytest.raises(ConversionError, match="pages of 4096 bytes"):
            android_native.measure_abis(folder, ["arm64-v8a"])
    finally:
        lists.write_text(right)


def test_every_abi_has_a_target_of_the_least_api_level() -> None:
    assert set(android_native.ABIS) == set(MACHINES)
    assert all(target.endswith(android.VERSIONS["min_sdk"]) for target in android_native.ABIS.values())


def test_sizes_are_not_measured_without_clang(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(android_native, "unbuildable", lambda *tools: "clang is missing")
    assert android_native.measure_abis(folder, ["x86_64", "x86"]) == {"x86_64": None, "x86": None}
