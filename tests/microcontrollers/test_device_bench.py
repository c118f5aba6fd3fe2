"""C models on emulated devices by the library and the command: exact or not, what they take, where they fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.microcontrollers.c_folders import write_folder

from edgewright.cli.main import run_command_line
from edgewright.core.errors import UnavailableError, UnknownNameError, UsageError
from edgewright.core.files import sha256_of
from edgewright.microcontrollers.device_bench import bench_on_devices
from edgewright.microcontrollers.qemu import DEVICES

Command = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.toolchain("ai_edge_litert")


@pytest.fixture
def edgewright(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command line and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command_line([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def source(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = assets / "models/tflite-micro/hello_world_int8.tflite"
    return write_folder(file, tmp_path_factory.mktemp("c"), name="hello")


@pytest.fixture
def wrong(assets: Path, tmp_path: Path) -> Path:
    """A model whose self-test expects another output in its first run."""
    source = write_folder(
        assets / "models/tflite-micro/hello_world_int8.tflite", tmp_path / "wrong", name="wrong"
    )
    test = source.with_name("wrong_test.c")
    text = test.read_text(encoding="utf-8")
    test.write_text(re.sub(r"(expected_output\[20\] = \{\n\s*)-?\d+", r"\g<1>99", text), encoding="utf-8")
    return source


def _needs(*devices: str) -> None:
    for device in devices:
        tools = DEVICES[device].tools
        if tools.missing:
            pytest.skip(f"needs {', '.join(tools.missing)}; run: {tools.fix}")


def test_every_device_gives_every_bit_and_says_what_it_takes(source: Path) -> None:
    _needs(*DEVICES)
    found = bench_on_devices([source], list(DEVICES))
    assert found.exit_code == 0
    assert [row.device for row in found.rows] == list(DEVICES)
    for row in found.rows:
        assert row.run is not None and "20 runs, 0 failures" in row.run.said
        assert row.arena_bytes == 32 and row.macs == 288 and row.author == "this machine"
        assert 288 < row.run.instructions < 288 * 30
        assert row.instructions_per_mac == row.run.instructions / 288
        assert 300 < row.run.text_bytes < 3000 and 300 < row.run.rodata_bytes < 1000
        assert 16 <= row.run.stack_bytes < 1024
        assert row.fits
        for fit in row.fits:
            assert fit.flash_bytes == row.run.flash_bytes
            assert fit.ram_bytes == 32 + row.run.stack_bytes
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert "no cycles" in record["counted"]
    assert set(record["tools"]) == {name for device in DEVICES.values() for name in device.tools.programs}
    assert record["rows"][0]["sha256"] == sha256_of(source.with_suffix(".tflite"))
    assert [row["exact"] for row in record["rows"]] == [True] * len(DEVICES)


def test_a_wrong_bit_on_one_device_is_told_and_the_others_go_on(source: Path, wrong: Path) -> None:
    _needs("cortex-m3")
    found = bench_on_devices([wrong, source], ["m3"])
    assert found.exit_code == 4
    first, second = found.rows
    assert first.run is None and "output is wrong in run 0" in first.reason and first.fits == ()
    assert second.run is not None


def test_models_of_one_name_are_told_apart(source: Path) -> None:
    _needs("cortex-m3")
    rows = bench_on_devices([source, source.parent, source], ["m3"]).rows
    folder = source.parent.name
    assert [row.model for row in rows] == ["hello", f"{folder}/hello", f"{folder}/hello #2"]


def test_a_board_chooses_its_device(source: Path) -> None:
    _needs("rv32")
    (row,) = bench_on_devices([source], boards=["hifive1-revb"]).rows
    assert row.device == "rv32"
    assert [fit.board.name for fit in row.fits] == ["hifive1-revb"]


def test_the_request_is_checked_before_anything_is_built(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="unknown device 'cortex-m8'"):
        bench_on_devices([source], ["cortex-m8"])
    with pytest.raises(UnknownNameError, match="unknown board 'picco'"):
        bench_on_devices([source], boards=["picco"])
    with pytest.raises(UsageError, match=r"pico needs the figures of cortex-m0plus.*add it"):
        bench_on_devices([source], ["m4"], boards=["pico"])
    with pytest.raises(UsageError, match="at least one device"):
        bench_on_devices([source])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="apt-get install -y qemu-system-misc gcc-riscv64-unknown-elf"):
        bench_on_devices([source], ["rv32"])


def test_the_command_prints_tables_or_one_json(source: Path, edgewright: Command) -> None:
    _needs("rv32", "cortex-m4")
    code, out, _ = edgewright("bench", source, "--device", "m4", "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["device"] == "cortex-m4" and row["exact"] and row["stack_bytes"] > 0
    assert {"arduino-nano-33-ble", "nucleo-l4r5zi"} <= {board["board"] for board in row["boards"]}
    code, out, _ = edgewright("bench", source.parent, "--board", "esp32-devkitc")
    assert code == 0
    assert "instructions as QEMU counts them" in out and "xtensa-lx6 ~rv32" in out


def test_the_command_fails_when_a_bit_differs(wrong: Path, edgewright: Command) -> None:
    _needs("cortex-m3")
    code, out, _ = edgewright("bench", wrong, "--device", "cortex-m3")
    assert code == 4
    assert "FAILED" in out and "output is wrong in run 0" in out


def test_what_times_does_not_go_with_devices(source: Path, edgewright: Command) -> None:
    code, _, err = edgewright("bench", source, "--device", "m4", "--launches", "3")
    assert code == 2 and "nothing is timed" in err
