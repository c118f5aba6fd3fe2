"""The backend `c` keeps the contract of backends, builds only its own code, and names what it cannot do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends.c import CBackend
from edgewright.core.errors import ConversionError, IntegrityError, UnavailableError, UsageError
from edgewright.core.files import sha256_of, sha256_of_files
from edgewright.core.target import Precision, Target
from edgewright.microcontrollers import oracle
from edgewright.sources.load import load
from edgewright.testing import check_backend

PROJECTS = (
    "CMakeLists.txt", "README.md", "cross.cmake", "hello_world_int8.ino", "idf_component.yml", "library.properties",
    "Kconfig", "module.yml",
)  # fmt: skip
pytestmark = pytest.mark.toolchain("torch", "torchao", "litert_torch", "ai_edge_litert", "ai_edge_quantizer")
INT8 = Target(runtime="c", precision=Precision.W8A8)


@pytest.fixture(autouse=True)
def with_a_compiler() -> None:
    if shutil.which("gcc") is None and shutil.which("clang") is None:
        pytest.skip("needs a C compiler")


@pytest.mark.slow
def test_it_conforms(tmp_path: Path) -> None:
    sources = [programs.cnn_tflite(tmp_path / "tflite"), programs.mlp_pt2(tmp_path / "pt2")]
    report = check_backend(
        CBackend(),
        programs=sources,
        calibrations={str(one.path): programs.calibration_for(one, one.path.parent) for one in sources},
        workdir=tmp_path / "work",
    )
    done = {(pair.program, pair.precision) for pair in report.converted}
    assert done == {(one.path.name, p) for one in sources for p in (Precision.FP32, Precision.W8A8)}


def test_an_int8_file_becomes_c_that_runs_and_says_who_agreed(assets: Path, tmp_path: Path) -> None:
    program = load(str(assets / "models/tflite-micro/hello_world_int8.tflite"), workdir=tmp_path / "source")
    artifact = CBackend().convert(program, INT8, None, tmp_path / "c")
    assert [file.name for file in artifact.files] == [
        "hello_world_int8.c",
        "hello_world_int8.h",
        "hello_world_int8_test.c",
        "Makefile",
        *PROJECTS,
        "hello_world_int8.tflite",
    ]
    compared = "bit-exact to LiteRT Micro" if oracle.is_installed() else "not compared with LiteRT Micro"
    assert any(compared in note for note in artifact.notes)
    session = CBackend().open(artifact, INT8)
    name = artifact.inputs[0].name
    given = np.full((1, 1), -30, dtype=np.int8)
    first = session.run({name: given})
    assert first[artifact.outputs[0].name].shape == (1, 1)
    session.close()


def test_name_and_labels_are_chosen_and_their_content_is_part_of_the_target(
    assets: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("an angle\n", encoding="utf-8")
    settled = CBackend().settle_options(["name=sine", f"labels={labels}"])
    assert settled == ("name=sine", f"labels={labels}", f"labels_sha256={sha256_of(labels)}")
    program = load(str(assets / "models/tflite-micro/hello_world_int8.tflite"), workdir=tmp_path / "source")
    target = replace(INT8, options=settled)
    artifact = CBackend().convert(program, target, None, tmp_path / "c")
    assert artifact.path.name == "sine.c" and '"an angle"' in artifact.path.read_text(encoding="utf-8")
    assert "sine_labels.txt" in artifact.names
    CBackend().open(artifact, target).close()
    labels.write_text("another\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="have changed since they were chosen"):
        CBackend().convert(program, target, None, tmp_path / "again")


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("nam=a", "Did you mean 'name'"),
        ("name=int", "no word or header of C"),
        ("name=string", "Call it 'string_model'"),
        ("name=a b", "Call it 'a_b'"),
        ("labels=none.txt", "cannot be read"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(option: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        CBackend().settle_options([option])


def test_code_that_was_changed_is_not_built(assets: Path, tmp_path: Path) -> None:
    program = load(str(assets / "models/tflite-micro/hello_world_int8.tflite"), workdir=tmp_path / "source")
    artifact = CBackend().convert(program, INT8, None, tmp_path / "c")
    artifact.path.write_text(artifact.path.read_text() + "\nint more;\n")
    forged = replace(artifact, sha256=sha256_of_files(artifact.files))
    with pytest.raises(IntegrityError, match="not what this version of Edgewright makes"):
        CBackend().open(forged, INT8)


def test_operators_that_are_not_covered_leave_no_file(assets: Path, tmp_path: Path) -> None:
    program = load(
        str(assets / "models/coral/mobilenet_v1_0.25_128_quant.tflite"), workdir=tmp_path / "source"
    )
    both = r"CONV_2D \(operator 0 and 14 more\): types uint8.*DEPTHWISE_CONV_2D \(operator 1 and 12 more\): types uint8"
    with pytest.raises(ConversionError, match=both):
        CBackend().convert(program, INT8, None, tmp_path / "c")
    assert not list((tmp_path / "c").rglob("*"))


def test_a_float_file_with_a_softmax_is_near_the_interpreter(assets: Path, tmp_path: Path) -> None:
    if not oracle.is_installed():
        pytest.skip("needs the interpreter; run: edgewright toolchain install tflm")
    program = load(
        str(assets / "models/hand-gesture/keypoint_classifier.tflite"), workdir=tmp_path / "source"
    )
    artifact = CBackend().convert(program, Target(runtime="c"), None, tmp_path / "c")
    assert any(note.startswith("within 1e-5 of LiteRT Micro") for note in artifact.notes)


def test_without_a_compiler_it_says_which_are_looked_for(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert "no C compiler (gcc, clang, cc)" in CBackend().probe().reason
    program = load(str(assets / "models/tflite-micro/hello_world_int8.tflite"), workdir=tmp_path / "source")
    with pytest.raises(UnavailableError, match="no C compiler"):
        CBackend().convert(program, INT8, None, tmp_path / "c")
