"""Bundles for iOS: a package with every file, whose golden cases run in Swift where a compiler is here."""

from __future__ import annotations

import plistlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.colour_model import colour_specification, write_colour_model

from edgewright.core.errors import ConversionError
from edgewright.deploy import ios, ios_proof
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.processing.c_code import write_core
from edgewright.processing.processor import Plan, plan
from edgewright.processing.specification import write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

needs_swift = pytest.mark.skipif(
    not ios_proof.has_swift(),
    reason=f"no Swift here, and {ios_proof.ROOT_VARIABLE} names no root that has one",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model with its processing beside it; input and result are named like words of Swift."""
    folder = tmp_path_factory.mktemp("colours")
    made = colour_specification()
    tensors = (replace(made.tensors[0], sources=("class",)),)
    named = replace(
        made,
        inputs=(replace(made.inputs[0], name="class"),),
        tensors=tensors,
        results=(replace(made.results[0], name="default"),),
    )
    write_specification(named, folder)
    return write_colour_model(folder / "colours.onnx")


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The package, not compiled."""
    request = BundleRequest(source=model, platform="ios", name="ColourFinder", licence="MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ios.IosPlatform, "prove", lambda self, content, folder: ())
        return make_bundle(request, tmp_path_factory.mktemp("bundle") / "colours")


def test_the_package_is_complete_and_checks(bundle: Bundle) -> None:
    home = bundle.folder / "Sources"
    public = {path.name for path in (home / "CColourFinder" / "include").iterdir()}
    assert public == {"ew_processing.h", "colour_finder_processing.h"}
    files = (
        "Sources/ColourFinder/Resources/model/colours.onnx",
        "Tests/ColourFinderTests/golden/golden.json",
        "Tests/ColourFinderTests/GoldenTests.swift",
        "processing/processing.toml",
        "App/ColourFinderApp.swift",
    )
    for file in files:
        assert (bundle.folder / file).is_file(), file
    assert check_bundle(bundle.folder).exit_code == 0


def test_what_ships_in_an_app_has_no_golden_case(bundle: Bundle) -> None:
    shipped = [path.name for path in (bundle.folder / "Sources").rglob("*") if path.is_file()]
    assert not [name for name in shipped if name.endswith(".bin") or "olden" in name]


def test_why_the_camera_is_asked_for_is_said(bundle: Bundle) -> None:
    asked = plistlib.loads((bundle.folder / "App" / "Info.plist").read_bytes())
    assert list(asked) == ["NSCameraUsageDescription"]
    allowed = plistlib.loads((bundle.folder / "App" / "ColourFinderApp.entitlements").read_bytes())
    assert allowed == {"com.apple.security.app-sandbox": True, "com.apple.security.device.camera": True}
    privacy = bundle.folder / "Sources" / "ColourFinder" / "Resources" / "PrivacyInfo.xcprivacy"
    assert plistlib.loads(privacy.read_bytes())["NSPrivacyTracking"] is False


def test_what_cannot_be_compiled_here_is_said(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(ios_proof.ROOT_VARIABLE, str(tmp_path))
    (said,) = ios.PLATFORM.prove(bundle.content, bundle.folder)
    assert said.startswith("not compiled here: no Swift")


def test_keywords_do_not_become_names(bundle: Bundle) -> None:
    api = (bundle.folder / "Sources" / "ColourFinder" / "ColourFinder.swift").read_text()
    assert "predict(classValue: Pixels) throws -> Results" in api
    assert "let defaultValue: [Label]" in api


@pytest.mark.slow
@needs_swift
def test_golden_cases_pass_in_swift_and_a_swapped_colour_order_fails(model: Path, tmp_path: Path) -> None:
    request = BundleRequest(source=model, platform="ios", name="ColourFinder")
    proofs = make_bundle(request, tmp_path / "right").record["proofs"]
    assert isinstance(proofs, list)
    assert "2 golden cases passed in XCTest" in proofs[0]
    assert "SwiftUI and AVFoundation are stubs" in proofs[1]

    def swapped(checked: Plan, folder: Path, name: str) -> object:
        steps = list(checked.specification.tensors[0].steps)
        steps[1] = colour_specification("bgr").tensors[0].steps[1]
        wrong = replace(checked.specification.tensors[0], steps=tuple(steps))
        return write_core(
            plan(replace(checked.specification, tensors=(wrong,)), checked.signatures), folder, name
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgewright.deploy.writing.write_core", swapped)
        with pytest.raises(ConversionError, match="tensor pixels differs"):
            make_bundle(request, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
@needs_swift
@pytest.mark.parametrize(
    ("file", "right", "wrong", "message"),
    [
        (
            "App/ColourFinderApp.swift",
            "Camera()",
            "Camera(7)",
            "argument passed to call that takes no arguments",
        ),
        (
            "Sources/ColourFinder/Engine.swift",
            "let core: Core",
            "let core: Core; var x = 1 as! Int",
            "warning|error",
        ),
        ("Package.swift", "targets: [", "targets: {", "have a right Package.swift"),
    ],
)
def test_a_mistake_anywhere_in_the_package_is_found(
    bundle: Bundle, tmp_path: Path, file: str, right: str, wrong: str, message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle.folder, folder)
    path = folder / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    with pytest.raises(ConversionError, match=message):
        ios.PLATFORM.prove(bundle.content, folder)
