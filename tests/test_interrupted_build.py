"""A build that is interrupted or terminated: nothing half-written, no orphan, and the next one goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.command_line import assert_nothing_half_written, cli, left_in
from tests.small_models import rows, write_data, write_onnx

pytestmark = pytest.mark.toolchain("onnx", "onnxruntime")
FAULTY = "tests.faulty_backends:"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    return write_data(model, model.parent / "eval.npz")


def _descendants_with(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EDGEWRIGHT_TEST_RUN") == marker:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_during_a_conversion_that_hangs(
    model: Path, tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    marker = tmp_path / "hangs"
    env = {
        "TMPDIR": str(temporary),
        "EDGEWRIGHT_TEST_MARKER": str(marker),
        "EDGEWRIGHT_TEST_RUN": str(tmp_path),
        "EDGEWRIGHT_CACHE": str(tmp_path / "cache"),
    }
    process = cli(
        "build", model, "--to", f"onnxruntime,{FAULTY}Hangs", "--precision", "fp32", "--out", tmp_path / "out", env=env
    )  # fmt: skip
    _wait_until(lambda: marker.exists() and marker.read_text() != "", process)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in err
    assert out == ""
    assert err.splitlines()[-1] == f"edgewright: {word}; finished steps are kept, run it again to go on."
    assert _descendants_with(str(tmp_path)) == []
    assert left_in(temporary) == []
    assert_nothing_half_written(tmp_path / "out")


# What has been printed on stderr when the signal is sent, as a text to wait for.
MOMENTS = ["", "source: load: done", "convert: done", "source: run: done", "-1t: run: done"]


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=() if m == "convert: done" else pytest.mark.slow) for m in MOMENTS]
)
def test_an_interrupted_build_leaves_nothing_and_goes_on(
    model: Path, data: Path, tmp_path: Path, moment: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {
        "TMPDIR": str(temporary),
        "EDGEWRIGHT_TEST_RUN": str(tmp_path),
        "EDGEWRIGHT_CACHE": str(tmp_path / "cache"),
    }
    arguments = (
        "build", model, "--data", data, "--to", "onnxruntime", "--precision", "fp32,fp16,w8,w8a8",
        "--out", tmp_path / "out",
    )  # fmt: skip
    process = cli(*arguments, env=env)
    assert process.stderr is not None
    if moment:
        while moment not in (line := process.stderr.readline()):
            assert line, process.wait()
    else:
        _wait_until(lambda: (tmp_path / "out" / ".edgewright").exists(), process)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("edgewright: interrupted")
    assert _descendants_with(str(tmp_path)) == []
    assert left_in(temporary) == []
    assert_nothing_half_written(tmp_path / "out")
    again = cli(*arguments, env=env)
    _, err = again.communicate()
    assert again.returncode in (0, 5), err
    if moment in ("source: run: done", "-1t: run: done"):
        assert err.count("convert: cached") == 4
    assert {row["status"] for row in rows(tmp_path / "out").values()} <= {"ok", "degraded"}
