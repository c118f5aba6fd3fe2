"""C++ bundles for LiteRT: our declarations are the library's, what is missing is said, and runs are true."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgewright.core.errors import UsageError
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.deploy.cpp import CppPlatform
from edgewright.deploy.cpp_runtimes import RUNTIMES
from edgewright.prediction import specify
from edgewright.processing.c_code import write_core
from edgewright.processing.processor import Signature, plan
from edgewright.processing.registry import read_step
from edgewright.processing.specification import write_specification

pytest.importorskip("ai_edge_litert")
_OWN = ("src/runtime.cpp", "src/litert_c.h")


def library() -> Path:
    folder = RUNTIMES["litert"].folder
    assert folder is not None
    return folder / "libLiteRt.so"


def write(request: BundleRequest, out: Path) -> Bundle:
    """Return the project, not built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CppPlatform, "prove", lambda self, content, folder: ())
        return make_bundle(request, out)


@pytest.fixture(scope="module")
def gestures(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A float32 model without a signature that leaves its batch open."""
    model = assets / "models/hand-gesture/keypoint_classifier.tflite"
    request = BundleRequest(source=model, platform="cpp", name="Gestures", processing="gesture")
    return write(request, tmp_path_factory.mktemp("bundle") / "gestures")


def configure(folder: Path, build: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed: apt-get install -y cmake")
    command = ["cmake", "-S", str(folder), "-B", str(build), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build(folder: Path, place: Path, name: str) -> list[str]:
    """Build the self-test of the project in `folder`; return the command that runs it."""
    done = configure(folder, place, f"-DLITERT_LIBRARY={library()}")
    assert done.returncode == 0, done.stderr
    command = ["cmake", "--build", str(place), "--parallel", "2", "--target", f"{name}_selftest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [str(place / f"{name}_selftest"), str(folder / "data")]


def run(command: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *more], capture_output=True, text=True, check=False)


def test_the_project_holds_what_litert_needs(gestures: Bundle) -> None:
    for name in _OWN:
        assert (gestures.folder / name).is_file()
    assert check_bundle(gestures.folder).exit_code == 0
    parts = {
        part["name"]: part for part in json.loads((gestures.folder / "bom.json").read_text())["components"]
    }
    assert parts["ai-edge-litert"]["purl"] == f"pkg:pypi/ai-edge-litert@{RUNTIMES['litert'].version}"


def test_the_library_exports_each_function_that_is_declared(gestures: Bundle) -> None:
    text = (gestures.folder / "src/litert_c.h").read_text()
    names = set(re.findall(r"\b(LiteRt\w+)\(", text))
    assert len(names) > 30
    opened = ctypes.CDLL(str(library()))
    assert [name for name in sorted(names) if not hasattr(opened, name)] == []


def test_cmake_says_that_the_runtime_is_missing(gestures: Bundle, tmp_path: Path) -> None:
    done = configure(gestures.folder, tmp_path / "build", "-DLITERT_LIBRARY=/nowhere/libLiteRt.so")
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert f"pip install ai-edge-litert=={RUNTIMES['litert'].version}" in said
    assert "libLiteRt.so is not found (LITERT_LIBRARY is '/nowhere/libLiteRt.so')" in said


def test_cmake_refuses_a_library_for_another_processor(gestures: Bundle, tmp_path: Path) -> None:
    head = library().read_bytes()[:64]
    (machine,) = struct.unpack_from("<H", head, 18)
    other = {0x3E: 0xB7, 0xB7: 0x3E}.get(machine)
    if other is None:
        pytest.skip("neither x86-64 nor arm64")
    wrong = tmp_path / "libLiteRt.so"
    wrong.write_bytes(head[:18] + struct.pack("<H", other) + head[20:])
    done = configure(gestures.folder, tmp_path / "build", f"-DLITERT_LIBRARY={wrong}")
    assert done.returncode != 0
    assert "is for another processor than" in " ".join(done.stderr.split())


def test_variable_tensors_are_refused(assets: Path, tmp_path: Path) -> None:
    model = assets / "models/tflite-micro/trained_lstm.tflite"
    request = BundleRequest(source=model, platform="cpp", name="Digits", processing="motion")
    with pytest.raises(UsageError, match="variable tensors"):
        make_bundle(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_golden_files_models_and_accelerators_that_are_wrong_fail(gestures: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gestures.folder, tmp_path / "copy"))
    command = build(folder, tmp_path / "build", "gestures")
    done = run(command)
    assert (done.returncode, done.stdout) == (0, "ok: all golden cases passed\n")
    # The wheel has nothing for an NPU.
    assert "no accelerator runs the model; NPU: LiteRT cannot" in run(command, "npu").stdout
    assert "none of npu, gpu, cpu" in run(command, "tpu").stdout
    golden = folder / "data/golden/0_tensors_0.bin"
    content = bytearray(golden.read_bytes())
    content[3] ^= 0x40  # the exponent of the first number
    golden.write_bytes(content)
    failed = run(command)
    assert failed.returncode == 1
    assert "tensor" in failed.stdout
    model = next((folder / "data/model").glob("*.tflite"))
    content = bytearray(model.read_bytes())
    content[0] ^= 0xFF  # where the file's root is
    model.write_bytes(content)
    broken = run(command)
    assert broken.returncode == 2
    assert "CPU: LiteRT cannot" in broken.stdout


@pytest.mark.slow
def test_a_swapped_colour_order_fails_its_self_test(assets: Path, tmp_path: Path) -> None:
    model = assets / "models/coral/mobilenet_v1_0.25_128_quant.tflite"
    samples = (str(assets / "data/coral-images/cat.bmp"),)
    request = BundleRequest(
        source=model, platform="cpp", name="Things", processing="mobilenet_v1", samples=samples
    )
    made = write(request, tmp_path / "things")
    command = build(made.folder, tmp_path / "build", "things")
    assert run(command).returncode == 0
    checked = made.content.plan
    swap = read_step({"step": "channels", "order": "bgr"}, what="test")
    (tensor,) = checked.specification.tensors
    wrong = replace(checked.specification, tensors=(replace(tensor, steps=(swap, *tensor.steps)),))
    (artifact,) = made.content.artifacts.values()
    signature = Signature(inputs=artifact.inputs, outputs=artifact.outputs)
    write_core(plan(wrong, signature), made.folder / "core", "things")
    command = build(made.folder, tmp_path / "build", "things")
    failed = run(command)
    assert failed.returncode == 1
    assert "differs by" in failed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("is_reversed", [False, True])
def test_two_models_keep_state_whatever_the_order_of_their_signatures(
    assets: Path, tmp_path: Path, is_reversed: bool
) -> None:
    from edgewright.backends import litert_file

    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("model_1.tflite", "model_2.tflite"):
        model = litert_file.read(assets / "models/dtln" / name)
        litert_file.normalise(model)
        (signature,) = model.signatureDefs or ()
        if is_reversed:
            for side in (signature.inputs, signature.outputs):
                assert side is not None and len(side) == 2
                side.reverse()
                for letter, entry in zip("ab", side, strict=True):
                    entry.name = letter.encode()  # no longer the tensor's
        litert_file.write(model, folder / name)
    checked = specify([folder / "model_1.tflite", folder / "model_2.tflite"], processing="dtln")
    write_specification(checked.specification, folder)
    request = BundleRequest(
        source=folder, platform="cpp", name="Denoiser", samples=(str(assets / "data/silero-audio/test.wav"),)
    )
    made = write(request, tmp_path / "denoiser")
    done = run(build(made.folder, tmp_path / "build", "denoiser"))
    assert (done.returncode, done.stdout) == (0, "ok: all golden cases passed\n")
