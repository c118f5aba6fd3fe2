"""LiteRT Micro: the delivered C array runs in the real interpreter, in the arena that is stated."""

from __future__ import annotations

import ctypes
import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs
from tests.backends.in_environment import RemoteSession
from tests.generated_litert import made_model, rename

from edgewright.backends import tflm_files, tflm_measure, tflm_stubs
from edgewright.backends.tflm import TflmBackend, TflmSession, quantized
from edgewright.backends.tflm_files import Port
from edgewright.backends.tflm_operators import METHODS, refusals_of
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import ConversionError, FormatMismatchError, IntegrityError
from edgewright.core.files import sha256_of_files
from edgewright.core.target import Precision, Target
from edgewright.microcontrollers import oracle
from edgewright.sources.load import inspect_artifact, load
from edgewright.sources.tflite_file import read_flatbuffer
from edgewright.testing import check_backend
from edgewright.workers import environments
from edgewright.workers.pool import Worker

pytestmark = pytest.mark.toolchain("ai_edge_litert", "ai_edge_quantizer", "litert_torch", "torch")
INT8 = Target(runtime="tflm", precision=Precision.W8A8)
HELLO = "models/tflite-micro/hello_world_int8.tflite"


@pytest.fixture
def interpreter() -> None:
    if not tflm_measure.is_installed():
        pytest.skip("needs the interpreter; run: edgewright toolchain install tflm")


@pytest.fixture
def worker(interpreter: None) -> Iterator[Worker]:
    with Worker("tflm", environment=tflm_measure.TOOLCHAIN) as made:
        yield made


def convert(model: Path, folder: Path, target: Target = INT8) -> Artifact:
    return TflmBackend().convert(load(str(model), workdir=folder / "source"), target, None, folder / "out")


@pytest.mark.slow
def test_it_conforms(tmp_path: Path, worker: Worker) -> None:
    sources = [programs.cnn_tflite(tmp_path / "tflite"), programs.mlp_pt2(tmp_path / "pt2")]
    backend = TflmBackend()
    backend.open = lambda artifact, target, *, profile=False: RemoteSession(worker, artifact, target)  # type: ignore[method-assign, assignment, return-value]
    report = check_backend(
        backend,
        programs=sources,
        calibrations={str(one.path): programs.calibration_for(one, one.path.parent) for one in sources},
        workdir=tmp_path / "work",
    )
    done = {(pair.program, pair.precision) for pair in report.converted}
    assert done == {(one.path.name, p) for one in sources for p in (Precision.FP32, Precision.W8A8)}
    assert {pair.proof for pair in report.converted} == {Proof.RUN}


def test_the_array_is_the_model_and_the_resolver_has_its_operators_alone(
    assets: Path, tmp_path: Path, interpreter: None
) -> None:
    model = assets / "models/mlperf-tiny/kws_dscnn_int8.tflite"
    artifact = convert(model, tmp_path)
    assert [file.name for file in artifact.files] == [
        "kws_dscnn_int8_model.cc",
        "kws_dscnn_int8_model.h",
        "kws_dscnn_int8_resolver.h",
        "main.cc",
        "README.md",
    ]
    text = artifact.path.read_text()
    assert tflm_files.array_content(text) == model.read_bytes()
    assert "alignas(16) const unsigned char kws_dscnn_int8_model_data[]" in text
    resolver = artifact.files[2].read_text()
    assert "MicroMutableOpResolver<6>" in resolver
    assert re.findall(r"resolver\.Add(\w+)\(\)", resolver) == [
        "AveragePool2D",
        "Conv2D",
        "DepthwiseConv2D",
        "FullyConnected",
        "Reshape",
        "Softmax",
    ]
    assert artifact.proof is Proof.RUN and artifact.environment == "tflm"
    assert any(note.startswith("arena 24,272 bytes, of it 16,000 for tensors") for note in artifact.notes)


def test_the_stated_arena_is_the_smallest(assets: Path, tmp_path: Path, interpreter: None) -> None:
    artifact = convert(assets / HELLO, tmp_path)
    stated = tflm_files.arena_bytes(artifact.files[1].read_text())
    rows = [[np.zeros((1, 1), dtype=np.int8)]]
    assert not oracle.run(assets / HELLO, rows, arena_bytes=stated).refusal
    assert oracle.run(assets / HELLO, rows, arena_bytes=stated - 16).refusal
    readme = artifact.files[-1].read_text()
    assert f"an arena of {stated:,} bytes" in readme and "| NodeAndRegistration struct |" in readme


def test_the_delivered_files_give_the_interpreter_s_bits(
    assets: Path, tmp_path: Path, worker: Worker
) -> None:
    artifact = convert(assets / HELLO, tmp_path)
    session = RemoteSession(worker, artifact, INT8)
    values = [np.full((1, 1), value, dtype=np.int8) for value in (-128, -30, 0, 77, 127)]
    wanted = oracle.run(assets / HELLO, [[value] for value in values])
    for value, (want,) in zip(values, wanted.outputs, strict=True):
        got = session.run({artifact.inputs[0].name: value})[artifact.outputs[0].name]
        np.testing.assert_array_equal(got, want)
    session.close()


def test_state_does_not_last_from_run_to_run(assets: Path, tmp_path: Path, worker: Worker) -> None:
    artifact = convert(assets / "models/tflite-micro/trained_lstm_int8.tflite", tmp_path)
    given = np.random.default_rng(5).integers(-128, 128, (1, 28, 28)).astype(np.int8)
    session = RemoteSession(worker, artifact, INT8)
    first, second = (session.run({artifact.inputs[0].name: given}) for _ in range(2))
    np.testing.assert_array_equal(*(run[artifact.outputs[0].name] for run in (first, second)))
    session.close()


def test_float_ends_leave_the_model_and_the_numbers_stay(tmp_path: Path, worker: Worker) -> None:
    maker = made_model()
    real = maker.tensor((1, 8), "float32")
    given = maker.tensor((1, 8), scale=0.037, zero=-11)
    result = maker.tensor((1, 8), scale=0.05, zero=4)
    shown = maker.tensor((1, 8), "float32")
    maker.operator("QUANTIZE", [real], [given], table="QuantizeOptions")
    maker.operator("LEAKY_RELU", [given], [result], table="LeakyReluOptions", options={"alpha": 0.2})
    maker.operator("DEQUANTIZE", [result], [shown], table="DequantizeOptions", version=2)
    model = maker.write(tmp_path / "ends.tflite", [real], [shown])
    artifact = convert(model, tmp_path)
    assert [spec.dtype for spec in (*artifact.inputs, *artifact.outputs)] == ["float32", "float32"]
    assert any("takes and gives integers" in note for note in artifact.notes)
    assert "AddQuantize" not in artifact.files[2].read_text()
    rows = np.random.default_rng(1).normal(0, 3, (20, 1, 8)).astype(np.float32)
    wanted = oracle.run(model, [[row] for row in rows])
    session = RemoteSession(worker, artifact, INT8)
    for row, (want,) in zip(rows, wanted.outputs, strict=True):
        got = session.run({artifact.inputs[0].name: row})[artifact.outputs[0].name]
        np.testing.assert_array_equal(got, want)
    session.close()


def test_the_header_s_functions_convert_as_the_session_does(assets: Path, tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    model = assets / "models/mlperf-tiny/kws_dscnn_int8.tflite"
    header = convert(model, tmp_path).files[1]
    source = tmp_path / "q.c"
    source.write_text(
        f'#include "{header.name}"\n'
        "int8_t quantize(float value) { return kws_dscnn_int8_quantize_input(value); }\n"
        "float dequantize(int8_t value) { return kws_dscnn_int8_dequantize_output(value); }\n"
    )
    define = [] if tflm_measure.is_installed() else ["-DKWS_DSCNN_INT8_MODEL_ARENA_BYTES=1"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-shared", "-fPIC", *define]
    subprocess.run([gcc, *flags, f"-I{header.parent}", "-o", tmp_path / "q.so", source], check=True)
    library = ctypes.CDLL(str(tmp_path / "q.so"))
    library.quantize.argtypes, library.quantize.restype = [ctypes.c_float], ctypes.c_int8
    library.dequantize.argtypes, library.dequantize.restype = [ctypes.c_int8], ctypes.c_float
    (scale,) = re.findall(r"INPUT_SCALE (\S+)f$", header.read_text(), re.MULTILINE)
    port = Port(name="", shape=(), dtype="int8", scale=float(np.float32(scale)), zero_point=83)
    step = np.float32(port.scale)
    halves = (np.arange(-300, 300) + 0.5).astype(np.float32) * step
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30], dtype=np.float32)
    values = np.concatenate(
        [halves, np.nextafter(halves, 0), np.random.default_rng(3).normal(0, 90, 2000), odd]
    )
    values = values.astype(np.float32)
    assert [library.quantize(value) for value in values] == quantized(values, port).tolist()
    assert library.dequantize(-128) == 0.0 and library.dequantize(127) == np.float32(0.00390625) * 255


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "coral/mobilenet_v1_0.25_128_quant.tflite",
            r"CONV_2D \(operator 0 and 14 more\): no kernel for uint8",
        ),
        ("coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite", "a custom operator without a kernel"),
    ],
)
def test_what_the_interpreter_lacks_is_named_before_a_file_is_written(
    assets: Path, tmp_path: Path, model: str, said: str
) -> None:
    with pytest.raises(ConversionError, match=said):
        convert(assets / "models" / model, tmp_path)
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_hybrid_and_half_models_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    maker = made_model()
    given, result = maker.tensor((1, 4), "float32"), maker.tensor((1, 3), "float32")
    if dtype == "int8":
        weights = maker.tensor((3, 4), scale=0.1, value=np.ones((3, 4)))
    else:
        stored = maker.tensor((3, 4), "float16", value=np.ones((3, 4)))
        weights = maker.tensor((3, 4), "float32")
        maker.operator("DEQUANTIZE", [stored], [weights], table="DequantizeOptions", version=3)
    maker.operator("FULLY_CONNECTED", [given, weights, -1], [result], table="FullyConnectedOptions")
    model = maker.write(tmp_path / "model.tflite", [given], [result])
    program = replace(load(str(model), workdir=tmp_path / "source"), precision=Precision.FP32)
    said = {"int8": "hybrid", "float16": "no kernel for float16"}[dtype]
    with pytest.raises(ConversionError, match=said):
        TflmBackend().convert(program, Target(runtime="tflm"), None, tmp_path / "out")


def test_the_interpreter_has_the_last_word(tmp_path: Path, interpreter: None) -> None:
    maker = made_model()
    given, result = maker.tensor((1, 4), "int64"), maker.tensor((1, 4), "int64")
    maker.operator("ABS", [given], [result], table="AbsOptions")
    model = maker.write(tmp_path / "model.tflite", [given], [result])
    with pytest.raises(
        ConversionError, match=r"does not take model\.tflite: .*: Current data type INT64 is not"
    ):
        convert(model, tmp_path, Target(runtime="tflm"))
    assert not list((tmp_path / "out").rglob("*"))


def test_without_the_interpreter_the_arena_is_not_invented(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path / "none"))
    support = TflmBackend().probe()
    assert support.is_available and not support.is_installed
    assert "edgewright toolchain install tflm" in support.reason
    artifact = convert(assets / HELLO, tmp_path)
    assert artifact.proof is Proof.CONVERTED
    assert any("neither run nor measured" in note for note in artifact.notes)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("no C++ compiler" in note for note in convert(assets / HELLO, tmp_path / "bare").notes)
    assert "#error" in artifact.files[1].read_text()


def test_files_that_were_changed_are_not_run(assets: Path, tmp_path: Path, interpreter: None) -> None:
    artifact = convert(assets / HELLO, tmp_path)
    artifact.path.write_text(artifact.path.read_text().replace("0x1c,", "0x1c, /* more */", 1))
    with pytest.raises(IntegrityError, match="is not what this version of Edgewright writes"):
        TflmSession(replace(artifact, sha256=sha256_of_files(artifact.files)))


def test_the_array_is_inspected_as_the_model_in_it(assets: Path, tmp_path: Path) -> None:
    artifact = convert(assets / HELLO, tmp_path)
    found = inspect_artifact(artifact.path)
    model = inspect_artifact(assets / HELLO)
    assert (found.layers, found.parameters, found.macs) == (model.layers, model.parameters, model.macs)
    assert found.notes[0] == "a .tflite of 2,704 bytes as a C array" and "arena" in found.notes[1]
    artifact.path.write_text(artifact.path.read_text() + "int more;")
    with pytest.raises(IntegrityError, match="is not what this version"):
        inspect_artifact(artifact.path)


def test_names_of_the_model_cannot_leave_a_comment(tmp_path: Path) -> None:
    maker = made_model()
    given, result = maker.tensor((1, 4), scale=0.1), maker.tensor((1, 4), scale=0.1)
    maker.operator("RELU", [given], [result])
    rename(maker, given, "x */ int evil(void); /* | `sh`\n#include <stdio.h>")
    model = maker.write(tmp_path / "2 odd-name;.tflite", [given], [result])
    artifact = convert(model, tmp_path)  # type-checks the example
    assert artifact.path.name == "model_2_odd_name_model.cc"
    for file in artifact.files[1:]:
        assert "evil(void)" not in file.read_text() and "#include <stdio.h>" not in file.read_text()


def test_several_inputs_and_types_are_in_the_example(tmp_path: Path) -> None:
    maker = made_model()
    one, other = maker.tensor((1, 4), "int32"), maker.tensor((1, 4), "int32")
    total, larger = maker.tensor((1, 4), "int32"), maker.tensor((1, 4), "bool")
    maker.operator("MAXIMUM", [one, other], [total], table="MaximumMinimumOptions")
    maker.operator("GREATER", [one, other], [larger], table="GreaterOptions")
    model = maker.write(tmp_path / "pair.tflite", [one, other], [total, larger])
    artifact = convert(model, tmp_path, Target(runtime="tflm"))
    example = artifact.files[3].read_text()
    assert "int32_t* const input_1 = interpreter.input(1)->data.i32;" in example
    assert "const bool* const output_1 = interpreter.output(1)->data.b;" in example


def test_the_type_check_catches_what_does_not_compile(tmp_path: Path) -> None:
    if not tflm_stubs.compiler():
        pytest.skip("needs a C++ compiler")
    wrong = tmp_path / "wrong.cc"
    wrong.write_text('#include "tensorflow/lite/micro/micro_interpreter.h"\nint x = tflite::AddConv2D();\n')
    with pytest.raises(ConversionError, match="does not compile"):
        tflm_stubs.type_check([wrong], folder=tmp_path / "stubs")


def test_the_example_calls_what_the_interpreter_s_library_has(
    assets: Path, tmp_path: Path, interpreter: None
) -> None:
    if not tflm_stubs.compiler() or shutil.which("nm") is None:
        pytest.skip("needs a C++ compiler and nm")
    folder = environments.default_root() / tflm_measure.TOOLCHAIN
    (library,) = folder.glob("lib/python*/site-packages/tflite_micro/python/tflite_micro/_runtime.so")
    artifact = convert(assets / HELLO, tmp_path)
    stubs = tmp_path / "stubs"
    for name, text in tflm_stubs.stub_files("tflite::micro").items():
        (stubs / name).parent.mkdir(parents=True, exist_ok=True)
        (stubs / name).write_text(text)
    compiled = tmp_path / "main.o"
    command = [tflm_stubs.compiler(), "-std=c++17", "-c", f"-I{stubs}", "-o", compiled, artifact.files[3]]
    subprocess.run(command, check=True)
    needed = set(re.findall(r"U (_ZN6tflite\w+)", _symbols("-u", compiled)))
    known = set(re.findall(r" [TW] (_ZN6tflite\w+)", _symbols("-D", library)))
    # What sets a board up is not in a library for this machine; all others, with the types of their arguments, are.
    assert needed - known == {"_ZN6tflite5micro16InitializeTargetEv"}
    assert len(needed & known) == 5


def _symbols(flag: str, file: Path) -> str:
    return subprocess.run(["nm", flag, file], capture_output=True, text=True, check=True).stdout


def test_other_precisions_and_threads_are_refused(assets: Path, tmp_path: Path) -> None:
    program = load(str(assets / HELLO), workdir=tmp_path)
    backend = TflmBackend()
    assert "makes fp32, w8a8, not w8" in str(backend.refuses(program, replace(INT8, precision=Precision.W8)))
    assert "one thread, not 2" in str(backend.refuses(program, replace(INT8, threads=2)))
    assert "taken as it is" in str(backend.refuses(replace(program, format="pt2"), INT8))
    with pytest.raises(FormatMismatchError):
        backend.convert(program, replace(INT8, threads=2), None, tmp_path / "out")


@pytest.mark.slow
def test_the_table_of_operators_is_the_interpreter_s(
    repo_root: Path, tmp_path: Path, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks" / "microcontrollers"))
    made_kinds = importlib.import_module("made_kinds")
    accepted = 0
    for case in list(made_kinds.cases(tmp_path, each=1, seed=3))[::4]:
        refused = refusals_of(read_flatbuffer(case.path))
        try:
            tflm_measure.measure_arena(case.path.read_bytes(), what=case.path.name)
        except ConversionError as err:
            said = str(err)
            assert refused or not re.search("find op|get registration", said), f"not in the table: {said}"
        else:
            assert not refused, f"{case.path.name} runs, but is refused: {refused}"
            accepted += 1
    assert accepted > 25


def test_every_method_has_its_operator_in_the_schema() -> None:
    from ai_edge_litert import schema_py_generated as schema

    known = {name.replace("_", "") for name in vars(schema.BuiltinOperator) if name.isupper()}
    for name, method in METHODS.items():
        assert name in vars(schema.BuiltinOperator)
        assert method.removeprefix("Add").upper() in known
