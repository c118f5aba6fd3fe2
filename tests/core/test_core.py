"""Records, errors, files and budgets of the core."""

from __future__ import annotations

import hashlib
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.core import errors
from edgewright.core.artifact import Artifact
from edgewright.core.budget import Budget, gate
from edgewright.core.errors import DataError, IntegrityError, UnknownNameError, UsageError, WorkerError
from edgewright.core.files import copy_files, read_json, sha256_of_files, work_folder, write_aside, write_json
from edgewright.core.result import Result, Status, exit_code_of
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import DTYPES, TensorSpec, check_arrays, to_layout

SPECS = st.builds(
    TensorSpec,
    name=st.text(max_size=20),
    shape=st.lists(st.none() | st.integers(0, 9), max_size=5).map(tuple),
    dtype=st.sampled_from(sorted(DTYPES)),
    layout=st.sampled_from([None, "nchw", "nhwc"]),
)
TARGETS = st.builds(
    Target,
    runtime=st.sampled_from(["litert", "a.b:C"]),
    precision=st.sampled_from(Precision),
    threads=st.integers(1, 256),
    layout=st.sampled_from([None, "nchw", "nhwc"]),
    quantizer=st.sampled_from([None, *Quantizer]),
    options=st.lists(st.text(max_size=20), max_size=3).map(tuple),
)


@given(spec=SPECS, target=TARGETS)
def test_records_survive_json(spec: TensorSpec, target: Target) -> None:
    assert TensorSpec.from_json(spec.to_json()) == spec
    assert Target.from_json(target.to_json()) == target
    artifact = Artifact(
        files=(Path("a"),),
        target=target,
        inputs=(spec,),
        outputs=(),
        sha256="0",
        source_sha256="1",
        notes=("n",),
    )
    assert Artifact.from_json(artifact.to_json()) == artifact


def test_exit_codes_are_those_that_the_help_tells() -> None:
    codes = {
        "UsageError": 2, "RecipeError": 2, "UnknownNameError": 2, "FormatMismatchError": 2, "DataError": 2,
        "UnavailableError": 3, "ConversionError": 4, "BudgetError": 5, "IntegrityError": 6, "WorkerError": 7,
    }  # fmt: skip
    for name, code in codes.items():
        error = errors.error_from_name(name, "text")
        assert (type(error).__name__, str(error), error.exit_code) == (name, "text", code)
    assert isinstance(errors.error_from_name("SystemExit", "text"), WorkerError)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([(Status.OK, None)], 0),
        ([(Status.OK, None), (Status.UNAVAILABLE, "UnavailableError")], 3),
        ([(Status.UNAVAILABLE, "UnavailableError"), (Status.DEGRADED, None)], 5),
        ([(Status.DEGRADED, None), (Status.FAILED, "ConversionError")], 4),
        ([(Status.FAILED, "WorkerError"), (Status.OK, None)], 7),
        ([(Status.FAILED, "IntegrityError")], 6),
        ([(Status.FAILED, "WorkerError"), (Status.FAILED, "IntegrityError")], 4),
    ],
)
def test_exit_code_of_results(rows: list[tuple[Status, str | None]], code: int) -> None:
    results = [
        Result(id=str(i), target=Target(runtime="r"), status=status, error=error)
        for i, (status, error) in enumerate(rows)
    ]
    assert exit_code_of(results) == code


def test_a_budget_on_what_nobody_measured_fails() -> None:
    budget = Budget.parse(["size_mb=1", "energy_mj=2"])
    assert gate({"size_mb": 1.0, "energy_mj": 2.0}, budget).is_pass
    verdict = gate({"size_mb": 1.1}, budget)
    assert not verdict.is_pass
    assert verdict.violations[0] == "size_mb: 1.1 > 1"
    assert "not measured" in verdict.violations[1]
    assert gate({"size_mb": 2.0, "download_mb": 1.5}, Budget.parse(["download_mb=1"])).violations == (
        "download_mb: 1.5 > 1",
    )
    assert not gate({"size_mb": math.nan, "energy_mj": 0.0}, budget).is_pass
    for text in ("size_mb=nan", "size_mb=-1", "size_mb=inf", "size_mb="):
        with pytest.raises(UsageError):
            Budget.parse([text])
    with pytest.raises(UnknownNameError, match="Did you mean 'size_mb'"):
        Budget.parse(["size_bm=1"])


def test_the_digest_of_several_files_is_what_sha256sum_prints(tmp_path: Path) -> None:
    for name, content in (("model.xml", b"x"), ("model.bin", b"y")):
        (tmp_path / name).write_bytes(content)
    files = (tmp_path / "model.xml", tmp_path / "model.bin")
    printed = subprocess.run(
        "sha256sum model.bin model.xml | sha256sum",
        shell=True,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert sha256_of_files(files) == printed.stdout.split()[0]
    assert sha256_of_files(files[:1]) == hashlib.sha256(b"x").hexdigest()


def _write_half(path: Path) -> None:
    with write_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError("in the middle")


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with pytest.raises(RuntimeError):
        _write_half(path)
    assert list(path.parent.iterdir()) == []
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError):
        _write_half(path)
    assert read_json(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]
    (copy,) = copy_files({path.name: path}, tmp_path / "other")
    assert copy.read_bytes() == path.read_bytes()
    with pytest.raises(UsageError):
        write_json(path / "below-a-file", {})


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"f\.json"):
        read_json(tmp_path / "f.json")


def _interrupted(seen: list[Path]) -> None:
    with work_folder() as folder:
        seen.append(folder)
        (folder / "file").touch()
        raise KeyboardInterrupt


def _full(seen: list[Path]) -> None:
    with work_folder() as folder:
        seen.append(folder)
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")


def test_a_work_folder_goes_whatever_happens() -> None:
    seen: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(seen)
    with pytest.raises(UsageError, match=r"No space left .* TMPDIR"):
        _full(seen)
    assert [folder.exists() for folder in seen] == [False, False]


def test_arrays_are_checked_against_the_signature() -> None:
    spec = TensorSpec(name="x", shape=(None, 2), dtype="float32")
    check_arrays({"x": np.zeros((5, 2), np.float32)}, [spec], what="input")
    for arrays, said in (
        ({"y": np.zeros((5, 2), np.float32)}, "['y']"),
        ({"x": np.zeros((5, 2))}, "float64"),
        ({"x": np.zeros((5, 3), np.float32)}, "[5, 3]"),
        ({"x": np.zeros(2, np.float32)}, "[2]"),
    ):
        with pytest.raises(DataError) as caught:
            check_arrays(arrays, [spec], what="input")
        assert said in str(caught.value)


def test_layouts_there_and_back() -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    moved = to_layout(array, "nchw", "nhwc")
    assert moved.shape == (2, 4, 5, 3)
    assert moved[1, 2, 3, 0] == array[1, 0, 2, 3]
    np.testing.assert_array_equal(to_layout(moved, "nhwc", "nchw"), array)
    assert to_layout(array, None, "nhwc") is array
