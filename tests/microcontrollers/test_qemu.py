"""C models on emulated cores: the self-test with the interpreter's outputs passes on each instruction set."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.microcontrollers.c_models import open_model

from edgewright.core.errors import ConversionError, UnknownNameError
from edgewright.microcontrollers import oracle
from edgewright.microcontrollers.emit import compile_model, golden_inputs, write_checks, write_sources
from edgewright.microcontrollers.qemu import DEVICES, run_on

pytestmark = pytest.mark.toolchain("ai_edge_litert")


@pytest.mark.slow
@pytest.mark.parametrize("board", DEVICES)
def test_a_model_is_exact_on_an_emulated_core(board: str, assets: Path, tmp_path: Path) -> None:
    made = DEVICES[board]
    if not oracle.is_installed() or made.tools.missing:
        pytest.skip(f"needs {', '.join(made.tools.programs)} and the toolchain tflm")
    path = assets / "models" / "tflite-micro" / "trained_lstm_int8.tflite"
    model = compile_model(path, name="lstm")
    write_sources(model, tmp_path)
    write_checks(model, tmp_path, oracle.run(path, golden_inputs(model)).outputs, source="LiteRT Micro")
    run = run_on(board, tmp_path, "lstm")
    assert "20 runs, 0 failures" in run.said
    assert model.macs / 8 < run.instructions < 20 * model.macs
    assert 32 <= run.stack_bytes < 2048
    assert model.table_bytes < run.flash_bytes < model.weight_bytes + 20_000


@pytest.mark.slow
def test_a_wrong_output_on_a_core_is_an_error(assets: Path, tmp_path: Path) -> None:
    made = DEVICES["cortex-m3"]
    if made.tools.missing:
        pytest.skip(f"needs {', '.join(made.tools.missing)}; run: {made.tools.fix}")
    path = assets / "models" / "tflite-micro" / "hello_world_int8.tflite"
    model = compile_model(path, name="hello")
    write_sources(model, tmp_path)
    host_model = open_model(model, tmp_path / "host")
    outputs = [host_model.run(row) for row in golden_inputs(model)]
    outputs[7] = tuple(value ^ 1 for value in outputs[7])
    write_checks(model, tmp_path, outputs, source="nobody")
    with pytest.raises(ConversionError, match="output is wrong in run 7"):
        run_on("cortex-m3", tmp_path, "hello")


def test_an_unknown_board_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cortex-m4'"):
        run_on("cortex-m4f", tmp_path, "hello")
