"""Bundles for iOS: a package with every file, whose golden cases run in Swift where a compiler is here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.colour_model import colour_specification, write_colour_model

from edgewright.core.errors import ConversionError
from edgewright.deploy import ios
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.processing.c_code import write_core
from edgewright.processing.processor import Plan, plan
from edgewright.processing.specification import write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

needs_swift = pytest.mark.skipif(
    ios._swiftc() is None, reason=f"no swiftc here, and {ios.ROOT_VARIABLE} names no root that has one"
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
    for file in ("ColourFinder/Resources/model/colours.onnx", "ColourFinder/Resources/golden/golden.json"):
        assert (home / file).is_file()
    assert (bundle.folder / "Tests" / "ColourFinderTests" / "GoldenTests.swift").is_file()
    assert check_bundle(bundle.folder).exit_code == 0


def test_keywords_do_not_become_names(bundle: Bundle) -> None:
    api = (bundle.folder / "Sources" / "ColourFinder" / "ColourFinder.swift").read_text()
    assert "predict(classValue: Pixels)" in api
    assert "let defaultValue: [Label]" in api


@pytest.mark.slow
@needs_swift
def test_golden_cases_pass_in_swift_and_a_swapped_colour_order_fails(model: Path, tmp_path: Path) -> None:
    request = BundleRequest(source=model, platform="ios", name="ColourFinder")
    proofs = make_bundle(request, tmp_path / "right").record["proofs"]
    assert isinstance(proofs, list)
    assert "golden cases passed in Swift" in proofs[0]
    assert "type-checked against stubs" in proofs[1]

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
