"""The command line: exit codes, one JSON value on stdout, and help with an example for every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.proving_backends import NOT_HERE

from edgewright.cli.main import app, run_command_line

if TYPE_CHECKING:
    from tests.conftest import SmallBuild

COMMANDS = [
    "build",
    "demo",
    "explain",
    "inspect",
    "convert",
    "verify",
    "bench",
    "run",
    "predict",
    "processing",
    "compare",
    "doctor",
    "pack",
    "unpack",
    "compress",
    "prune",
    "sparsify",
    "cluster",
    "distill",
    "qat",
    "repair",
]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def edgewright(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command line and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command_line([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_every_command_has_help_with_an_example(edgewright: Command) -> None:
    assert sorted(
        command.callback.__name__ for command in app.registered_commands if command.callback
    ) == sorted(COMMANDS)
    for name in COMMANDS:
        code, out, _ = edgewright(name, "--help")
        assert code == 0
        assert f"Example: edgewright {name}" in " ".join(out.split())
        assert "--json" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bild",), "bild"),
        (("build",), "MODEL is missing"),
        (("build", "m.onnx", "--precission", "fp32"), "--precission"),
        (("build", "m.onnx", "--precision", "fp23"), "Did you mean 'fp32'?"),
        (("build", "m.onnx", "--to", "openvin"), "does not exist"),
        (("build", "m.onnx", "--threads", "two"), "whole numbers"),
        (("build", "m.onnx", "--threads", "0"), "expected 1..256"),
        (("build", "m.onnx", "--budget", "speed=5"), "unknown budget 'speed'"),
        (("build", "m.onnx", "--budget", "size_mb=small"), "NAME=NUMBER"),
        (("build", "m.onnx", "--layout", "chw"), "nchw, nhwc"),
        (("build", "m.onnx", "--require", "some"), "all, one"),
        (("build", "m.onnx", "--recipe", "r.toml"), "not both"),
        (("build", "--recipe", "no-such.toml"), "no-such.toml"),
        (("inspect", "no-such.onnx"), "does not exist"),
        (("bench", "no-such.onnx"), "does not exist"),
        (("compare", "no-such-a", "no-such-b"), "no-such-a"),
    ],
)
def test_usage_errors_are_one_message_and_exit_2(
    edgewright: Command,
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = edgewright(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("edgewright: ")
    code, out, _ = edgewright(*arguments, "--json")
    record = json.loads(out)
    assert code == 2
    assert set(record) == {"error", "message", "exit_code"}
    assert record["exit_code"] == 2
    assert said in record["message"]


def test_an_unknown_runtime_is_named_with_the_nearest(
    edgewright: Command, small_build: SmallBuild, tmp_path: Path
) -> None:
    code, _, err = edgewright("build", small_build.model, "--to", "onxruntime", "--out", tmp_path / "out")
    assert code == 2
    assert "Did you mean 'onnxruntime'?" in err


def test_build_prints_one_json_value(edgewright: Command, small_build: SmallBuild, tmp_path: Path) -> None:
    code, out, _ = edgewright(
        "build", "--recipe", small_build.out / "recipe.toml", "--out", tmp_path / "out", "--json"
    )
    assert code == 3  # one of the runtimes is not here
    record = json.loads(out)
    assert record == json.loads((tmp_path / "out" / "results.json").read_text())


def test_build_shows_the_table_on_stdout_and_the_progress_on_stderr(
    edgewright: Command, small_build: SmallBuild, tmp_path: Path
) -> None:
    _, out, err = edgewright("build", "--recipe", small_build.out / "recipe.toml", "--out", tmp_path / "out")
    assert "onnxruntime" in out
    assert "report.html" in out
    assert "cached" in err
    assert "cached" not in out


def test_require_one_accepts_a_recommended_result(
    edgewright: Command, small_build: SmallBuild, tmp_path: Path
) -> None:
    code, out, _ = edgewright(
        "build", small_build.model, "--data", small_build.data, "--to", f"onnxruntime,{NOT_HERE}",
        "--precision", "fp32", "--require", "one", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    record = json.loads(out)
    assert code == (0 if record["recommended"] else 3)


@pytest.mark.parametrize("arguments", [(), ("toolchain",)])
def test_without_a_command_the_help_is_shown_as_it_is(
    edgewright: Command, arguments: tuple[str, ...]
) -> None:
    code, out, err = edgewright(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: edgewright")
    assert "See edgewright --help" not in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = (
        "import sys; from edgewright.cli.main import run_command_line;"
        "sys.exit(run_command_line(['toolchain', 'list', '--json']))"
    )
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=nobody, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_inspect_run_verify_and_compare(edgewright: Command, small_build: SmallBuild, tmp_path: Path) -> None:
    folder = small_build.out / "artifacts" / "onnxruntime-fp32"
    for name in (small_build.model, folder / "model.onnx", folder):
        code, out, _ = edgewright("inspect", name, "--json")
        assert code == 0
        found = json.loads(out)
        assert found["parameters"] == 8 * 9 + 512 * 10
        assert found["macs"] == 64 * 8 * 9 + 512 * 10
    x = np.load(small_build.data)["x"][:1]
    np.save(tmp_path / "x.npy", x)
    code, out, _ = edgewright(
        "run", folder, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--json"
    )
    assert code == 0
    y = np.load(tmp_path / "y.npy")
    assert list(json.loads(out)["outputs"]) == ["logits"]
    assert int(y.argmax()) == int(np.load(small_build.data)["labels"][0])
    code, out, _ = edgewright(
        "verify", folder, "--against", small_build.model, "--data", small_build.data, "--json"
    )
    assert (code, json.loads(out)["status"]) == (0, "ok")
    code, out, _ = edgewright("compare", small_build.out, small_build.out, "--json")
    assert code == 0
    json.loads(out)


def test_run_refuses_inputs_that_do_not_fit(
    edgewright: Command, small_build: SmallBuild, tmp_path: Path
) -> None:
    folder = small_build.out / "artifacts" / "onnxruntime-fp32"
    for array, said in (
        (np.zeros((1, 1, 8, 7), np.float32), "[1, 1, 8, 7]"),
        (np.zeros((1, 1, 8, 8), np.float64), "float64"),
    ):
        np.save(tmp_path / "x.npy", array)
        code, _, err = edgewright("run", folder, "--input", tmp_path / "x.npy")
        assert code == 2
        assert said in err
    code, _, err = edgewright("run", folder, "--input", f"y={tmp_path / 'x.npy'}")
    assert code == 2
    assert "unknown input 'y'" in err
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    code, _, err = edgewright("run", folder, "--input", tmp_path / "bad.npy")
    assert code == 2
    assert "bad.npy" in err


def test_verify_finds_another_model(edgewright: Command, small_build: SmallBuild, tmp_path: Path) -> None:
    from tests.small_models import write_onnx

    other = write_onnx(tmp_path / "other.onnx", seed=7)
    code, out, _ = edgewright(
        "verify", small_build.out / "artifacts" / "onnxruntime-fp32", "--against", other, "--json"
    )
    assert code == 5
    assert "differs from the source" in json.loads(out)["reason"]


def test_convert_writes_a_verified_artifact(
    edgewright: Command, small_build: SmallBuild, tmp_path: Path
) -> None:
    code, out, _ = edgewright(
        "convert",
        small_build.model,
        "--to",
        "onnxruntime",
        "--precision",
        "fp16",
        "--out",
        tmp_path / "out",
        "--json",
    )
    record = json.loads(out)
    assert (code, record["status"]) == (0, "ok")
    assert Path(record["artifact_record"]["files"][0]).is_file()
    code, out, err = edgewright("convert", small_build.model, "--to", NOT_HERE, "--out", tmp_path / "none")
    assert code == 3
    assert "onnx" in (out + err).lower()


@pytest.mark.slow
def test_bench_compares_an_artifact_with_itself(edgewright: Command, small_build: SmallBuild) -> None:
    folder = small_build.out / "artifacts" / "onnxruntime-fp32"
    code, out, _ = edgewright("bench", folder, folder, "--launches", "3", "--json")
    assert code == 0
    record = json.loads(out)
    assert len(record["comparisons"]) == 1
    assert record["comparisons"][0]["verdict"] in ("no difference", "a faster", "b faster")


def test_doctor_tells_what_is_here(edgewright: Command) -> None:
    code, out, _ = edgewright("doctor", "--json")
    record = json.loads(out)
    assert code == (0 if record["ok"] else 3)
    assert {"python", "edgewright", "onnxruntime", "worker processes", "cache", "energy"} <= {
        check["name"] for check in record["checks"]
    }


@pytest.mark.slow
def test_the_demo(edgewright: Command, tmp_path: Path) -> None:
    code, out, _ = edgewright("demo", "--to", "onnxruntime", "--out", tmp_path / "out", "--json")
    record = json.loads(out)
    assert code == 0
    assert {row["status"] for row in record["results"]} == {"ok"}


def test_python_runs_it_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgewright", "bench", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: edgewright bench" in done.stdout
