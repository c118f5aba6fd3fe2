"""C++ bundles: built by CMake, true to their golden cases, and caught when they are not."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.colour_model import colour_specification, write_colour_model

from edgewright.core.errors import FormatMismatchError, UnknownNameError, UsageError
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.deploy.cpp import CppPlatform
from edgewright.processing.c_code import write_core
from edgewright.processing.processor import Signature, plan
from edgewright.processing.specification import write_specification
from edgewright.recipe import Recipe
from edgewright.single import convert

pytest.importorskip("onnx")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model for OpenVINO, its processing beside it."""
    folder = tmp_path_factory.mktemp("colours")
    model = write_colour_model(folder / "colours.onnx")
    write_specification(colour_specification(), folder)
    recipe = Recipe(model=str(model), runtimes=("openvino",), precisions=("fp32",), processing=str(folder))
    convert(recipe, out=folder / "out", use_cache=False)
    return folder / "out" / "artifacts" / "openvino-fp32"


@pytest.fixture(scope="module")
def written(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The project, not built."""
    request = BundleRequest(source=artifact, platform="cpp", name="ColourFinder", licence="MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CppPlatform, "prove", lambda self, content, folder: ())
        return make_bundle(request, tmp_path_factory.mktemp("bundle") / "colours")


def test_the_project_is_complete_and_checks(written: Bundle) -> None:
    names = {str(path.relative_to(written.folder)) for path in written.folder.rglob("*") if path.is_file()}
    for name in ("CMakeLists.txt", "include/colour_finder/colour_finder.hpp", "core/colour_finder_processing.c",
                 "data/model/model.xml", "LICENSES/edgewright.txt", "README.md"):  # fmt: skip
        assert name in names
    assert check_bundle(written.folder).exit_code == 0


def test_the_bill_of_materials_names_model_core_and_runtime(written: Bundle) -> None:
    bom = json.loads((written.folder / "bom.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["name"]: part for part in bom["components"]}
    assert {"edgewright-processing", "openvino", "model.xml", "model.bin"} <= set(parts)
    assert parts["model.bin"]["type"] == "machine-learning-model"


@pytest.mark.parametrize(
    "name", ["data/model/model.bin", "data/golden/0_results_0.bin", "core/ew_api.c", "bom.json"]
)
def test_a_flipped_byte_is_found(written: Bundle, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written.folder, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    found = check_bundle(folder)
    assert found.exit_code == 6
    assert any(name in problem for row in found.rows for problem in row.problems)


def test_what_is_missing_or_added_is_said(written: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written.folder, folder)
    (folder / "README.md").unlink()
    (folder / "build.log").write_text("of a build")
    found = check_bundle(folder)
    assert any("README.md is missing" in row.problems for row in found.rows)
    assert any("build.log" in text for row in found.rows for text in (row.note, *row.problems))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"name": "colour finder"}, UsageError),
        ({"version": "one"}, UsageError),
        ({"platform": "fridge"}, UnknownNameError),
        ({"options": ("abi=arm",)}, UnknownNameError),
        ({"samples": ("nothing.png",)}, UsageError),
    ],
)
def test_bad_requests_are_refused(
    artifact: Path, tmp_path: Path, changed: dict[str, str], error: type[Exception]
) -> None:
    request = BundleRequest(source=artifact, platform="cpp", name="ColourFinder")
    with pytest.raises(error):
        make_bundle(replace(request, **changed), tmp_path / "out")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_model_for_another_runtime_is_refused(tmp_path: Path, assets: Path) -> None:
    model = assets / "models/hand-gesture/keypoint_classifier.tflite"
    request = BundleRequest(source=model, platform="ios", name="Gestures", processing="gesture")
    with pytest.raises(FormatMismatchError, match="onnxruntime"):
        make_bundle(request, tmp_path / "out")


@pytest.mark.slow
def test_it_builds_and_a_swapped_colour_order_fails_its_self_test(
    written: Bundle, artifact: Path, tmp_path: Path
) -> None:
    import openvino

    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed: apt-get install -y cmake")
    folder = tmp_path / "project"
    shutil.copytree(written.folder, folder)
    config = Path(openvino.__file__).parent / "cmake"
    build = tmp_path / "build"
    commands = (
        ["cmake", "-S", str(folder), "-B", str(build), f"-DOpenVINO_DIR={config}"],
        ["cmake", "--build", str(build), "--parallel", "2"],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    test = [str(build / "colour_finder_selftest"), str(folder / "data")]
    assert subprocess.run(test, check=False).returncode == 0

    from edgewright.artifact_files import read_artifact

    own = read_artifact(artifact)
    signature = Signature(inputs=own.inputs, outputs=own.outputs)
    wrong = colour_specification("bgr")
    names = (
        replace(wrong.tensors[0], name=own.inputs[0].name),
        replace(wrong.results[0], sources=(own.outputs[0].name,)),
    )
    wrong = replace(wrong, tensors=(names[0],), results=(names[1],))
    write_core(plan(wrong, signature), folder / "core", "colour_finder")
    assert subprocess.run(commands[1], capture_output=True, check=False).returncode == 0
    failed = subprocess.run(test, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "tensor" in failed.stdout
