"""The changes that the bundles' benchmark makes are changes, and the emulated board knows what it has to start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.colour_model import SIZE, colour_specification

from edgewright.core.tensors import TensorSpec
from edgewright.processing.processor import Signature, plan

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.deploy import board, tasks

SIGNATURE = Signature(
    inputs=(TensorSpec(name="pixels", shape=(1, 3, SIZE, SIZE), dtype="float32"),),
    outputs=(TensorSpec(name="means", shape=(1, 3), dtype="float32"),),
)


def test_swapped_colours_fit_the_model_and_differ() -> None:
    right = colour_specification()
    wrong = tasks.swap_colours(right)
    assert wrong != right and wrong.results == right.results
    assert plan(wrong, SIGNATURE).types.keys() == plan(right, SIGNATURE).types.keys()


def test_a_specification_without_frames_has_no_window_to_change() -> None:
    with pytest.raises(AssertionError, match="frames"):
        tasks.change_window(colour_specification())


def test_programs_of_the_board_are_known_by_their_header(tmp_path: Path) -> None:
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if compiler is None:
        pytest.skip("no compiler for arm64: apt-get install -y gcc-aarch64-linux-gnu")
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    subprocess.run([compiler, "-o", str(tmp_path / "a"), str(tmp_path / "a.c")], check=True)
    (tmp_path / "link").symlink_to("a")
    assert board.is_arm64(tmp_path / "a")
    assert not board.is_arm64(tmp_path / "link"), "what it points to gets the launcher"
    assert not board.is_arm64(tmp_path / "a.c") and not board.is_arm64(Path(sys.executable).resolve())
