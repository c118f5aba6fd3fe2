"""The bundle for the web that several files of tests look at."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.colour_model import colour_specification, write_colour_model
from tests.deploy.web_site import EVIL, skip_without

from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.web import WebPlatform
from edgewright.deploy.web_runtimes import ONNXRUNTIME_WEB
from edgewright.processing.specification import write_specification


@pytest.fixture(scope="session")
def web_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model, its processing beside it; one label is hostile."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("colours")
    specification = colour_specification()
    (result,) = specification.results
    write_specification(
        replace(specification, results=(replace(result, labels=("red", EVIL, "blue")),)), folder
    )
    return write_colour_model(folder / "colours.onnx")


@pytest.fixture(scope="session")
def web_bundle(web_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle, not yet seen by a browser: never change it."""
    pytest.importorskip("onnxruntime")
    skip_without(ONNXRUNTIME_WEB)
    return _unproven(web_model, tmp_path_factory.mktemp("bundle") / "colours")


@pytest.fixture(scope="session")
def gpu_bundle(web_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with WebGPU in front, not yet seen by a browser: never change it."""
    pytest.importorskip("onnxruntime")
    skip_without(ONNXRUNTIME_WEB)
    return _unproven(web_model, tmp_path_factory.mktemp("bundle") / "gpu", "accelerator=webgpu")


def _unproven(model: Path, out: Path, *options: str) -> Bundle:
    request = BundleRequest(source=model, platform="web", name="ColourFinder", licence="MIT", options=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebPlatform, "prove", lambda self, content, folder: ())
        return make_bundle(request, out)


@pytest.fixture
def web_copy(web_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(web_bundle.folder, tmp_path / "copy"))
