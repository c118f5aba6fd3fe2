"""Bad input of every kind, for real: one clear error, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.command_line import assert_nothing_half_written, cli, left_in
from tests.small_models import arrays, rows, write_data, write_onnx

REPO_ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.toolchain("onnx", "onnxruntime")
FAULTY = "tests.faulty_backends:"


class Outcome:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def message(self) -> str:
        """The error: what stderr holds after the progress."""
        return self.err[self.err.index("edgewright: ") :]


Command = Callable[..., Outcome]


@pytest.fixture
def edgewright(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command line in this process; workers are real processes."""
    from edgewright.cli.main import run_command_line

    def run(*arguments: object) -> Outcome:
        code = run_command_line([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    return write_data(model, model.parent / "eval.npz")


def build(edgewright: Command, model: Path, out: Path, *more: object) -> Outcome:
    return edgewright("build", model, "--to", "onnxruntime", "--precision", "fp32", "--out", out, *more)


# Model files


def test_missing_and_empty_models(edgewright: Command, tmp_path: Path) -> None:
    missing = build(edgewright, tmp_path / "no.onnx", tmp_path / "out")
    assert (missing.code, missing.out) == (2, "")
    assert (
        missing.message == f"edgewright: model file {tmp_path / 'no.onnx'} does not exist. Check the path.\n"
    )
    empty = tmp_path / "empty.onnx"
    empty.touch()
    found = build(edgewright, empty, tmp_path / "out")
    assert found.code == 2
    assert "is empty" in found.message
    folder = build(edgewright, tmp_path, tmp_path / "out2")
    assert folder.code == 2
    assert "not a file" in folder.message


def test_names_in_errors_do_not_steer_the_terminal(edgewright: Command, tmp_path: Path) -> None:
    made = edgewright("inspect", tmp_path / "\x1b[31mnone\x07.onnx")
    assert made.code == 2
    assert r"\x1b[31mnone\x07.onnx" in made.err and "\x1b[31m" not in made.err


@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
def test_truncated_models(edgewright: Command, model: Path, tmp_path: Path, part: float) -> None:
    cut = tmp_path / "cut.onnx"
    content = model.read_bytes()
    cut.write_bytes(content[: int(len(content) * part)])
    found = build(edgewright, cut, tmp_path / "out")
    assert found.code in (2, 6)
    assert str(cut) in found.message
    assert_nothing_half_written(tmp_path / "out")


def test_a_file_of_another_kind(edgewright: Command, tmp_path: Path) -> None:
    text = tmp_path / "model.onnx"
    text.write_text("this is no model\n" * 100)
    found = build(edgewright, text, tmp_path / "out")
    assert found.code in (2, 6)
    assert "model.onnx" in found.message
    strange = tmp_path / "model.xyz"
    strange.write_bytes(b"abc")
    found = build(edgewright, strange, tmp_path / "out")
    assert found.code == 2
    assert ".onnx" in found.message  # what would be read


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_mutated_models_end_in_an_error_or_a_proven_result(
    edgewright: Command, model: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    content = bytearray(model.read_bytes())
    for _ in range(20):
        content[rng.randrange(200)] = rng.randrange(256)
    mutant = tmp_path / "mutant.onnx"
    mutant.write_bytes(content)
    found = build(edgewright, mutant, tmp_path / "out")
    assert found.code in (0, 2, 3, 4, 5, 6, 7)
    if found.code in (2, 6, 7) and not (tmp_path / "out" / "results.json").exists():
        assert len(found.message) > 40


def test_a_pickle_of_code_never_runs(edgewright: Command, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {marker}",)

    for name in ("model.pt", "model.pt2", "model.pth"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Evil()))
        found = build(edgewright, path, tmp_path / "out")
        assert found.code in (2, 6), name
        assert name in found.message
    weights = tmp_path / "weights.pt"
    weights.write_bytes(pickle.dumps(Evil()))
    found = edgewright(
        "build", "edgewright.sample.digits:create", "--weights", weights, "--input-shape", "1x1x8x8",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code in (2, 6)
    assert not marker.exists()


# Data


def bad_data(kind: str, model: Path) -> dict[str, np.ndarray]:
    good = arrays(model, count=16)
    x, labels = good["x"], good["labels"]
    return {
        "shape": {"x": x[:, :, :7], "labels": labels},
        "dtype": {"x": (x * 100).astype(np.int64), "labels": labels},
        "name": {"images": x, "depth": x, "labels": labels},
        "labels": {"x": x, "labels": labels[:5]},
        "class": {"x": x, "labels": labels + 1000},
        "nan": {"x": np.where(np.arange(16)[:, None, None, None] == 3, np.nan, x).astype(np.float32), "labels": labels},
        "empty": {"x": x[:0], "labels": labels[:0]},
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("shape", "[7, 8]|1, 7, 8"),
        ("dtype", "int64"),
        ("name", "images"),
        ("labels", "5"),
        ("class", "10"),
        ("nan", "NaN|nan|finite"),
        ("empty", "0|empty|no sample"),
    ],
)
def test_data_that_do_not_fit(edgewright: Command, model: Path, tmp_path: Path, kind: str, said: str) -> None:
    import re

    file = tmp_path / "bad.npz"
    np.savez(file, **bad_data(kind, model))
    found = build(edgewright, model, tmp_path / "out", "--data", file, "--metric", "top1")
    assert found.code == 2, found.err
    assert re.search(said.replace("[", r"\["), found.message), found.message
    assert_nothing_half_written(tmp_path / "out")


def test_constant_data_are_refused(edgewright: Command, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "constant.npz", x=np.full((128, 1, 8, 8), 0.5, dtype=np.float32))
    np.savez(tmp_path / "eval.npz", **arrays(model))
    for option in ("--data", "--calibration"):
        other = () if option == "--data" else ("--data", tmp_path / "eval.npz")
        found = build(
            edgewright,
            model,
            tmp_path / "out",
            option,
            tmp_path / "constant.npz",
            "--precision",
            "w8a8",
            *other,
        )
        assert found.code == 2
        assert "constant.npz holds the same values in every sample" in found.message
        assert_nothing_half_written(tmp_path / "out")


def test_data_that_are_no_data(edgewright: Command, model: Path, tmp_path: Path) -> None:
    missing = build(edgewright, model, tmp_path / "out", "--data", tmp_path / "no.npz")
    assert missing.code == 2
    assert "no.npz" in missing.message
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 not a zip")
    found = build(edgewright, model, tmp_path / "out", "--data", broken)
    assert found.code in (2, 6)
    assert "broken.npz" in found.message


# Output folders and disks


def test_output_that_is_a_file_or_holds_foreign_files(
    edgewright: Command, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    found = build(edgewright, model, file)
    assert found.code == 2
    assert found.message == f"edgewright: output folder {file} is a file. Choose another with --out.\n"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    found = build(edgewright, model, foreign)
    assert found.code == 2
    assert [f.name for f in foreign.iterdir()] == ["thesis.txt"]
    assert file.read_text() == "mine"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a tmpfs with the given options; the test is skipped where that is not allowed."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a tmpfs is not allowed here; run the tests as root with CAP_SYS_ADMIN")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_output_folder(edgewright: Command, model: Path, mount: Callable[[str], Path]) -> None:
    folder = mount("ro")
    found = build(edgewright, model, folder / "out")
    assert found.code == 2
    assert "Read-only file system" in found.message
    assert str(folder / "out") in found.message


def test_a_full_disk_for_the_output(edgewright: Command, model: Path, mount: Callable[[str], Path]) -> None:
    folder = mount("size=16k")
    found = build(edgewright, model, folder / "out")
    assert found.code == 2
    assert "No space left on device" in found.message
    assert_nothing_half_written(folder / "out")


@pytest.mark.parametrize("size", ["4k", "64k"])
def test_a_full_disk_for_temporary_files(
    model: Path, data: Path, tmp_path: Path, mount: Callable[[str], Path], size: str
) -> None:
    folder = mount(f"size={size}")
    process = cli(
        "build", model, "--data", data, "--to", "onnxruntime", "--precision", "fp32,fp16", "--no-cache",
        "--out", tmp_path / "out", env={"TMPDIR": str(folder)},
    )  # fmt: skip
    out, err = process.communicate()
    assert "Traceback" not in out + err
    assert process.returncode in (2, 4, 7), err
    assert "No space left" in out + err or "space in the temporary folder" in out + err, out + err
    assert left_in(folder) == []


# Vendor libraries that misbehave


@pytest.mark.parametrize(
    ("backend", "code", "said"),
    [
        ("CrashesInConvert", 7, "SIGSEGV"),
        ("CrashesInRun", 7, "SIGSEGV"),
        ("Hangs", 7, "did not finish within 3 s"),
        ("EatsMemory", 7, "the limit is 572 MiB"),
        ("ExitsSilently", 7, "no answer"),
        ("Raises", 7, "is not supported"),
        ("WritesHalfAFile", 4, "model.onnx"),
        ("ChangesItsFile", 6, "it changed after it was written"),
        ("WritesAWrongModel", 5, "differs from the source"),
        ("WritesOutside", 4, "outside its folder"),
    ],
)
def test_a_vendor_fault_is_one_row_and_no_more(
    edgewright: Command,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    code: int,
    said: str,
) -> None:
    if backend == "Hangs":
        monkeypatch.setenv("EDGEWRIGHT_TIMEOUT_S", "3")
    if backend == "EatsMemory":
        monkeypatch.setenv("EDGEWRIGHT_MEMORY_MB", "600")
    faulty = f"{FAULTY}{backend}"
    found = edgewright(
        "build", model, "--data", data, "--to", f"{faulty},onnxruntime", "--precision", "fp32",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == code, found.out + found.err
    by_id = rows(tmp_path / "out")
    bad, good = by_id[f"{faulty}-fp32-1t"], by_id["onnxruntime-fp32-1t"]
    assert bad["status"] == ("degraded" if code == 5 else "failed")
    assert said in str(bad["reason"]), bad["reason"]
    assert "\x1b" not in str(bad["reason"]) + found.out
    assert len(str(bad["reason"])) <= 2000
    assert (good["status"], good["reason"]) == ("ok", "")
    assert good["latency_ms"] is not None


def test_a_flood_on_stdout_harms_nothing(edgewright: Command, model: Path, tmp_path: Path) -> None:
    found = edgewright(
        "build",
        model,
        "--to",
        f"{FAULTY}FloodsStdout",
        "--precision",
        "fp32",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert found.code == 0, found.err
    record = json.loads(found.out)
    assert [row["status"] for row in record["results"]] == ["ok"]
    assert "noise" not in found.err


def test_a_class_that_is_no_backend_is_unavailable(edgewright: Command, model: Path, tmp_path: Path) -> None:
    for name in ("CannotBeMade", "NoSuchClass"):
        found = edgewright(
            "build", model, "--to", f"{FAULTY}{name}", "--precision", "fp32", "--out", tmp_path / "out"
        )
        assert found.code == 3
        (row,) = rows(tmp_path / "out").values()
        assert "cannot be loaded" in str(row["reason"])


# Artifacts that were changed


def test_a_changed_artifact_is_found(edgewright: Command, model: Path, data: Path, tmp_path: Path) -> None:
    assert build(edgewright, model, tmp_path / "out").code == 0
    folder = tmp_path / "out" / "artifacts" / "onnxruntime-fp32"
    good = edgewright("verify", folder, "--against", model, "--data", data)
    assert good.code == 0, good.err
    file = folder / "model.onnx"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 8, 8), dtype=np.float32))
    for arguments in (
        ("verify", folder, "--against", model),
        ("run", folder, "--input", tmp_path / "x.npy"),
        ("bench", folder),
    ):
        found = edgewright(*arguments)
        assert found.code == 6, arguments
        assert "changed after it was written" in found.message
    file.unlink()
    found = edgewright("run", folder, "--input", tmp_path / "x.npy")
    assert found.code == 6
    assert "missing" in found.message
