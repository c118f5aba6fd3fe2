"""Edge TPU: the documented rules operator by operator, the compiler's log, and a model that was compiled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.backends import programs
from tests.generated_litert import made_model

from edgewright.backends import litert_file
from edgewright.backends.edgetpu import EdgeTpuBackend
from edgewright.backends.edgetpu_log import parse_log
from edgewright.backends.edgetpu_rules import Readiness, check_model
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import ConversionError, IntegrityError, UnavailableError, UsageError
from edgewright.core.target import Precision, Target
from edgewright.sources.edgetpu_package import edgetpu_notes, read_package
from edgewright.sources.load import load
from edgewright.sources.tflite_file import read_flatbuffer
from edgewright.testing import check_backend

if TYPE_CHECKING:
    from benchmarks.microcontrollers.made_models import Maker

pytestmark = pytest.mark.toolchain("ai_edge_litert", "ai_edge_quantizer", "litert_torch", "torch")
BACKEND = EdgeTpuBackend()
COMPILED = "models/coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite"
# What the compiler printed for a YOLOv3-tiny, as its user wrote it down (paths are shortened).
RECORDED = """\
Edge TPU Compiler version 15.0.340273435

Model compiled successfully in 577 ms.

Input model: yolov3-tiny_int8.tflite
Input size: 8.58MiB
Output model: yolov3-tiny_int8_edgetpu.tflite
Output size: 8.70MiB
On-chip memory used for caching model parameters: 3.00KiB
On-chip memory remaining for caching model parameters: 7.67MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 36
Operation log: yolov3-tiny_int8_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported \
by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 34

Operator                       Count      Status

MAX_POOL_2D                    6          More than one subgraph is not supported
QUANTIZE                       2          Operation is otherwise supported, but not mapped due to some unspecified \
limitation
QUANTIZE                       1          Mapped to Edge TPU
QUANTIZE                       1          More than one subgraph is not supported
CONV_2D                        1          Mapped to Edge TPU
CONV_2D                        12         More than one subgraph is not supported
RESIZE_NEAREST_NEIGHBOR        1          Operation version not supported
LEAKY_RELU                     11         Operation not supported
CONCATENATION                  1          More than one subgraph is not supported
"""
REFUSED = """\
Edge TPU Compiler version 16.0.384591198
ERROR: Didn't find op for builtin opcode 'QUANTIZE' version '3'. An older version of this builtin might be supported.

ERROR: Registration failed.

Invalid model: quantized_model.tflite
Model could not be parsed
"""


def convert(model: Path, folder: Path, *options: str) -> Artifact:
    target = Target(runtime="edgetpu", precision=Precision.W8A8, options=BACKEND.settle_options(options))
    return BACKEND.convert(load(str(model), workdir=folder / "source"), target, None, folder / "out")


def check(path: Path, *, runtime: int = 14) -> Readiness:
    return check_model(litert_file.read(path), read_flatbuffer(path), runtime=runtime)


@pytest.mark.parametrize(
    ("model", "operators"),
    [
        ("coral/mobilenet_v1_0.25_128_quant", 31),
        ("coral/mobilenet_v2_1.0_224_quant", 66),
        ("tflite-micro/micro_speech_quantized", 4),
    ],
)
def test_models_that_are_known_to_compile_keep_the_rules(assets: Path, model: str, operators: int) -> None:
    found = check(assets / "models" / f"{model}.tflite")
    assert found.is_ready and found.mapped == len(found.operators) == operators


def test_the_first_offending_operator_is_named_with_a_rewrite(assets: Path, tmp_path: Path) -> None:
    model = assets / "models/coral/deeplabv3_mnv2_dm05_pascal_quant.tflite"
    said = (
        r"ARG_MAX \(operator 71, 'ArgMax'\) is not among the supported operations.*so 71 of 72 would run on the "
        r"Edge TPU\. Instead: give the scores.*--option edgetpu\.cpu_operators=allow"
    )
    with pytest.raises(ConversionError, match=said):
        convert(model, tmp_path)
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


@pytest.mark.slow
def test_it_conforms(assets: Path, tmp_path: Path) -> None:
    sources = [
        load(str(assets / "models/tflite-micro/micro_speech_quantized.tflite"), workdir=tmp_path / "source"),
        programs.cnn_pt2(tmp_path / "pt2"),
    ]
    report = check_backend(
        BACKEND,
        programs=sources,
        calibrations={str(one.path): programs.calibration_for(one, tmp_path) for one in sources[1:]},
        workdir=tmp_path / "work",
    )
    assert {pair.program for pair in report.converted} == {one.path.name for one in sources}
    assert not {pair.proof for pair in report.converted} & {Proof.RUN, Proof.INTERPRETED}


def test_a_compiled_model_is_not_compiled_again(assets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="Instead: it is compiled already"):
        convert(assets / COMPILED, tmp_path)


def test_without_the_compiler_nothing_is_called_compiled(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    support = BACKEND.probe()
    assert support.is_available and not support.is_installed and "not compiled" in support.reason
    artifact = convert(assets / "models/mlperf-tiny/kws_dscnn_int8.tflite", tmp_path)
    assert artifact.proof is Proof.RECIPE
    assert [file.name for file in artifact.files] == ["model.tflite", "readiness.json", "build.sh"]
    assert any(
        note.startswith("not compiled, for edgetpu_compiler is not here: run ") for note in artifact.notes
    )
    assert "all 13 operators keep the documented rules, which is no promise of the compiler" in artifact.notes
    record = json.loads(artifact.files[1].read_text())
    assert record["is_ready"] and record["mapped_operators"] == 13
    assert {row["verdict"] for row in record["operators"]} == {
        "keeps the rules",
        "keeps the rules, but might not be mapped",
    }
    assert (
        "edgetpu_compiler --show_operations --min_runtime_version 14 model.tflite"
        in artifact.files[2].read_text()
    )
    with pytest.raises(UnavailableError):
        BACKEND.open(artifact, artifact.target)


def fake_compiler(folder: Path, said: str, monkeypatch: pytest.MonkeyPatch, *, writes: Path | None) -> None:
    """Put a FAKE edgetpu_compiler on PATH: it compiles nothing, hands out a file, and shows how that is handled."""
    (folder / "said.txt").write_text(said)
    copy = f"cp '{writes.resolve()}' model_edgetpu.tflite\n" if writes else ""
    script = folder / "edgetpu_compiler"
    script.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo "Edge TPU Compiler version 16.0.fake"; exit 0; fi\n'
        f"cat '{folder / 'said.txt'}'\n{copy}"
    )
    script.chmod(0o755)
    tools = [str(Path(shutil.which(tool) or "/bin/sh").parent) for tool in ("sh", "cat", "cp")]
    monkeypatch.setenv("PATH", ":".join([str(folder), *tools]))


def test_flow_with_a_fake_compiler(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_mapped = RECORDED.partition("Model successfully")[0].replace(": 36", ": 13") + (
        "Operator                       Count      Status\n\n"
        "CONV_2D                        13         Mapped to Edge TPU\n"
    )
    other = assets / COMPILED  # what the real compiler made of another model
    fake_compiler(tmp_path, all_mapped, monkeypatch, writes=other)
    assert "not run: there is no Edge TPU here" in BACKEND.probe().reason
    model = assets / "models/mlperf-tiny/kws_dscnn_int8.tflite"
    artifact = convert(model, tmp_path / "mapped")
    assert artifact.proof is Proof.CONVERTED
    assert [file.name for file in artifact.files] == [
        "model_edgetpu.tflite",
        "readiness.json",
        "model_edgetpu.log",
    ]
    assert any("13 of 13 operators on the Edge TPU in 1 parts" in note for note in artifact.notes)
    assert any("not run here" in note for note in artifact.notes)

    fake_compiler(tmp_path, RECORDED, monkeypatch, writes=other)
    with pytest.raises(
        ConversionError, match=r"leaves operators of .* to the CPU: 6 MAX_POOL_2D \(More than one"
    ):
        convert(model, tmp_path / "partly")
    allowed = convert(model, tmp_path / "allowed", "cpu_operators=allow")
    assert any(note.startswith("on the CPU: 6 MAX_POOL_2D") for note in allowed.notes)

    fake_compiler(tmp_path, all_mapped, monkeypatch, writes=None)
    with pytest.raises(ConversionError, match="wrote nothing"):
        convert(model, tmp_path / "nothing")
    fake_compiler(tmp_path, all_mapped, monkeypatch, writes=model)
    with pytest.raises(ConversionError, match=r"says 1 parts, but model_edgetpu\.tflite holds 0"):
        convert(model, tmp_path / "plain")
    fake_compiler(tmp_path, REFUSED, monkeypatch, writes=other)
    with pytest.raises(ConversionError, match="did not compile the model: ERROR: Didn't find op"):
        convert(model, tmp_path / "refused")


def test_a_recorded_log_is_read() -> None:
    log = parse_log(RECORDED)
    assert (log.version, log.subgraphs, log.operations) == ("15.0.340273435", 1, 36)
    assert (log.cached_bytes, log.free_bytes, log.streamed_bytes) == (3072, round(7.67 * 2**20), 0)
    assert log.on_edge_tpu == 2
    assert sum(row.count for row in log.on_cpu) == 34
    assert str(log.on_cpu[-2]) == "11 LEAKY_RELU (Operation not supported)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text.replace("Total number of operations: 36", "Total number of operations: 35"),
            "but lists 36",
        ),
        (lambda text: text.replace("8.58MiB", "x").replace("3.00KiB", "three"), "has the size 'three'"),
        (lambda text: text.replace("Number of Edge TPU subgraphs", "Parts"), "has no line"),
        (lambda text: text.replace("subgraphs: 1", "subgraphs: one"), "as 'one'"),
        (lambda text: "", "it said nothing"),
        (lambda text: REFUSED, "Model could not be parsed"),
    ],
)
def test_logs_that_say_otherwise_are_no_success(change: Callable[[str], str], said: str) -> None:
    with pytest.raises(ConversionError, match=said):
        parse_log(change(RECORDED))


Make = Callable[["Maker"], tuple[list[int], list[int]]]


def _pool(activation: int) -> Make:
    def make(m: Maker) -> tuple[list[int], list[int]]:
        given, result = m.tensor((1, 4, 4, 8), scale=0.1), m.tensor((1, 2, 2, 8), scale=0.1)
        options = {"padding": 1, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
        options["fusedActivationFunction"] = activation
        m.operator("MAX_POOL_2D", [given], [result], table="Pool2DOptions", options=options)
        return [given], [result]

    return make


def _convolution(shape: tuple[int, ...], dilation: tuple[int, int] = (1, 1), version: int = 3) -> Make:
    def make(m: Maker) -> tuple[list[int], list[int]]:
        given, result = m.tensor(shape, scale=0.1), m.tensor(shape, scale=0.1)
        weights = m.tensor((8, 3, 3, 8), scale=0.02, value=np.ones((8, 3, 3, 8)))
        options = {"strideW": 1, "strideH": 1, "dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        m.operator(
            "CONV_2D", [given, weights, -1], [result], table="Conv2DOptions", options=options, version=version
        )
        return [given], [result]

    return make


def _with_constant(name: str, table: str, value: object, shape: tuple[int, ...] = (1, 4, 4, 6)) -> Make:
    def make(m: Maker) -> tuple[list[int], list[int]]:
        given, result = m.tensor(shape, scale=0.1), m.tensor((1, 4, 4, 1), scale=0.1)
        numbers = np.asarray(value)
        place = m.tensor(numbers.shape, "int32", value=numbers)
        m.operator(name, [given, place], [result], table=table)
        return [given], [result]

    return make


def _concatenation(value: int) -> Make:
    def make(m: Maker) -> tuple[list[int], list[int]]:
        given, result = m.tensor((1, 4), scale=0.1, zero=3), m.tensor((1, 8), scale=0.1, zero=3)
        constant = m.tensor((1, 4), scale=0.1, zero=3, value=np.full((1, 4), value))
        m.operator(
            "CONCATENATION", [given, constant], [result], table="ConcatenationOptions", options={"axis": 1}
        )
        return [given], [result]

    return make


def _unary(name: str, shape: tuple[int, ...], dtype: str = "int8") -> Make:
    def make(m: Maker) -> tuple[list[int], list[int]]:
        scale = 0.1 if dtype != "float32" else None
        given, result = m.tensor(shape, dtype, scale=scale), m.tensor(shape, dtype, scale=scale)
        m.operator(name, [given], [result])
        return [given], [result]

    return make


def _slice(strides: list[int]) -> Make:
    def make(m: Maker) -> tuple[list[int], list[int]]:
        given, result = m.tensor((1, 8), scale=0.1), m.tensor((1, 4), scale=0.1)
        parts = [m.tensor((2,), "int32", value=np.array(part)) for part in ([0, 0], [1, 8], strides)]
        m.operator("STRIDED_SLICE", [given, *parts], [result], table="StridedSliceOptions")
        return [given], [result]

    return make


def _computed_weights(m: Maker) -> tuple[list[int], list[int]]:
    given, weights, result = (m.tensor(shape, scale=0.1) for shape in ((1, 4), (3, 4), (1, 3)))
    m.operator("FULLY_CONNECTED", [given, weights, -1], [result], table="FullyConnectedOptions")
    return [given, weights], [result]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_pool(0), ""),
        (_pool(1), "has a fused activation"),
        (_convolution((1, 4, 4, 8)), ""),
        (_convolution((2, 4, 4, 8)), "only the 3 innermost dimensions may be larger than 1"),
        (_convolution((1, 4, 4, 8), (2, 1)), "dilates by 2 down and 1 across"),
        (_convolution((1, 4, 4, 8), version=6), "has version 6"),
        (_with_constant("MEAN", "ReducerOptions", [1, 2]), ""),
        (_with_constant("MEAN", "ReducerOptions", [-1]), "averages over 6 channels"),
        (_with_constant("MEAN", "ReducerOptions", [-1], (1, 4, 4, 8)), ""),
        (_with_constant("SUM", "ReducerOptions", [0]), "reduces the batch dimension"),
        (_with_constant("PAD", "PadOptions", [[0, 0], [1, 1], [1, 1], [0, 0]]), ""),
        (_with_constant("PAD", "PadOptions", [[1, 0], [1, 1], [1, 1], [0, 0]]), "pads the batch dimension"),
        (_concatenation(3), ""),
        (_concatenation(4), "not all zeros"),
        (_unary("SOFTMAX", (1, 1000)), ""),
        (_unary("SOFTMAX", (4, 10)), "must be one-dimensional"),
        (_unary("SOFTMAX", (1, 16001)), "has 16001 elements"),
        (_unary("RELU6", (1, 8), "float32"), "is float32; every tensor must be int8 or uint8"),
        (_unary("TANH", (1, 8), "int16"), "is int16"),
        (_unary("HARD_SWISH", (1, 8)), "is not among the supported operations"),
        (_slice([1, 1]), ""),
        (_slice([1, 2]), "slices with strides other than 1"),
        (_computed_weights, "is computed at run time"),
    ],
)
def test_each_rule_is_checked(tmp_path: Path, make: Make, said: str) -> None:
    maker = made_model()
    inputs, outputs = make(maker)
    found = check(maker.write(tmp_path / "model.tflite", inputs, outputs))
    if not said:
        assert found.is_ready, found.offending[0].violation
        return
    (offending,) = found.offending
    assert offending.violation is not None
    assert said in offending.violation.reason and offending.violation.rewrite
    assert found.mapped == 0


def test_the_runtime_decides_which_operators_there_are(tmp_path: Path) -> None:
    maker = made_model()
    inputs, outputs = _unary("RSQRT", (1, 8))(maker)
    model = maker.write(tmp_path / "model.tflite", inputs, outputs)
    assert check(model).is_ready
    (offending,) = check(model, runtime=13).offending
    assert offending.violation is not None and "needs runtime 14" in offending.violation.reason
    with pytest.raises(UsageError, match="expected 13 or 14"):
        BACKEND.settle_options(["min_runtime_version=9"])


def test_a_compiled_model_tells_what_it_holds(assets: Path) -> None:
    package, place = edgetpu_notes(assets / COMPILED)
    assert package == (
        "compiled for the Edge TPU: chip beagle, runtime 12 or newer, 566,912 bytes of parameters, "
        "executables: 1 execution-only, 1 parameter-caching"
    )
    assert place == "no operator stays on the CPU"


def test_a_damaged_package_is_named(assets: Path) -> None:
    options = litert_file.read(assets / COMPILED).subgraphs[0].operators[0].customOptions  # type: ignore[attr-defined]
    content = np.asarray(options, dtype=np.uint8).tobytes()
    assert read_package(content, Path("x")).min_runtime_version == 12
    draw = np.random.default_rng(4)
    refused = 0
    for _ in range(200):
        broken = bytearray(content)
        for place in draw.integers(0, len(content), 3):
            broken[place] = draw.integers(0, 256)
        for place in draw.integers(4, 64, 2):
            broken[place] = draw.integers(0, 256)
        try:
            read_package(bytes(broken), Path("x"))
        except IntegrityError:
            refused += 1
    assert refused > 20  # what happens to be read is a count or a size that is off, and nothing worse
    for cut in (b"", content[:8], content[:40], content[: len(content) // 2]):
        with pytest.raises(IntegrityError):
            read_package(cut, Path("x"))
