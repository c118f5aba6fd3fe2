"""Real int8 models as C: bit-exact to the LiteRT Micro interpreter, in no more memory, clean under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.microcontrollers.c_models import open_model, random_rows

from edgewright.microcontrollers import oracle, selftest
from edgewright.microcontrollers.emit import compile_model, golden_inputs, write_checks, write_sources

# file, the interpreter's activations in bytes (0: not recorded)
MODELS = {
    "kws": ("mlperf-tiny/kws_dscnn_int8.tflite", 16_000),
    "resnet8": ("mlperf-tiny/ic_resnet8_int8.tflite", 49_152),
    "vww": ("mlperf-tiny/vww_mobilenet_96_int8.tflite", 73_728),
    "hello_world": ("tflite-micro/hello_world_int8.tflite", 0),
    "person_detect": ("tflite-micro/person_detect.tflite", 0),
    "micro_speech": ("tflite-micro/micro_speech_quantized.tflite", 0),
}
pytestmark = pytest.mark.toolchain("ai_edge_litert")


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_interpreters(name: str, assets: Path, tmp_path: Path) -> None:
    if not oracle.is_installed():
        pytest.skip("needs the interpreter; run: edgewright toolchain install tflm")
    file, activations = MODELS[name]
    path = assets / "models" / file
    model = compile_model(path, name=name)
    rows = random_rows(model, 8, seed=5)
    expected = oracle.run(path, rows)
    assert not expected.refusal
    made = open_model(model, tmp_path)
    for row, want in zip(rows, expected.outputs, strict=True):
        for got, right in zip(made.run(row), want, strict=True):
            np.testing.assert_array_equal(got, right)
    assert not activations or model.plan.arena_bytes <= activations


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("name", ["kws", "hello_world"])
def test_the_folder_checks_itself_under_sanitizers(name: str, cc: str, assets: Path, tmp_path: Path) -> None:
    if shutil.which(cc) is None or shutil.which("make") is None:
        pytest.skip(f"needs {cc} and make")
    model = compile_model(assets / "models" / MODELS[name][0], name=name)
    made = open_model(model, tmp_path / name)
    write_checks(
        model, tmp_path / name, [made.run(row) for row in golden_inputs(model)], source="this machine"
    )
    for target in ("check", "sanitize"):
        done = subprocess.run(
            ["make", "-C", str(tmp_path / name), target, f"CC={cc}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{selftest.RUNS} runs, 0 failures" in done.stdout


def test_a_wrong_expectation_fails_the_self_test(assets: Path, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    model = compile_model(assets / "models" / MODELS["hello_world"][0], name="hello")
    write_sources(model, tmp_path)
    nothing = [(np.zeros((1, 1), dtype=np.int8),)] * selftest.RUNS
    write_checks(model, tmp_path, nothing, source="nobody")
    done = subprocess.run(["make", "-C", str(tmp_path), "check"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "output is wrong in run 0" in done.stdout


def test_another_compiler_or_other_flags_are_not_answered_by_what_was_built_before(
    assets: Path, tmp_path: Path
) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    model = compile_model(assets / "models" / MODELS["hello_world"][0], name="hello")
    made = open_model(model, tmp_path)
    write_checks(model, tmp_path, [made.run(row) for row in golden_inputs(model)], source="this machine")
    for flags in ("-O2", "-O1 -DEDGEWRIGHT_PORTABLE"):
        done = subprocess.run(
            ["make", "-C", str(tmp_path), "check", f"CFLAGS={flags}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{flags} -o hello_test" in done.stdout
