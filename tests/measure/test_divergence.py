"""The first diverging layer: a layer broken on purpose is named, a sound model is left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends import litert_file, registry, trace, trace_onnx
from edgewright.compress.quantize import quantize_pt2e
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import TracedLayer
from edgewright.core.files import sha256_of, sha256_of_files
from edgewright.core.program import Program
from edgewright.core.result import Status
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array
from edgewright.measure.divergence import Comparison, first_divergence, pair_layers
from edgewright.pipeline import build
from edgewright.workers.pool import call_once

if TYPE_CHECKING:
    from torch import nn

pytestmark = pytest.mark.toolchain(
    "torch", "onnx", "onnxruntime", "openvino", "nncf", "litert_torch", "ai_edge_litert", "ai_edge_quantizer"
)

WEIGHTED = {
    "onnxruntime": trace_onnx.OPERATORS.weighted,
    "openvino": {"Convolution", "GroupConvolution", "MatMul"},
    "litert": {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"},
}
RUNTIMES = ("onnxruntime", "openvino", "litert")
N_SAMPLES = 8
FIND = "edgewright.measure.divergence:find"


class Case:
    """The CNN of the backends' tests and its artifacts, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = programs.cnn_pt2(folder / "pt2")
        self.calibration = programs.calibration_for(self.program, folder)
        self.data = save_data(folder / "data", (N_SAMPLES, *programs.CNN_IMAGE))
        self._artifacts: dict[tuple[str, str], Artifact] = {}
        self._quantized: Program | None = None

    def artifact(self, runtime: str, precision: str) -> Artifact:
        key = (runtime, precision)
        if key not in self._artifacts:
            if precision == "w8a8" and self._quantized is None:
                self._quantized = quantize_pt2e(
                    self.program,
                    precision=Precision.W8A8,
                    calibration=self.calibration,
                    workdir=self.folder / "quantized",
                )
            program = self._quantized if precision == "w8a8" and self._quantized else self.program
            self._artifacts[key] = convert(
                program, runtime, precision, self.folder / f"{runtime}-{precision}", self.calibration
            )
        return self._artifacts[key]


def convert(
    program: Program, runtime: str, precision: str, folder: Path, calibration: object = None
) -> Artifact:
    target = Target(runtime=runtime, precision=Precision(precision))
    return registry.get(runtime).convert(program, target, calibration, folder)  # type: ignore[arg-type]


def save_data(folder: Path, shape: tuple[int, ...]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(7).normal(0.3, 1.0, shape).astype(np.float32)
    np.save(folder / "0.npy", samples)
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("divergence"))


def permuted(values: Array) -> Array:
    return np.random.default_rng(1).permutation(values.ravel()).reshape(values.shape)


def zeroed(values: Array) -> Array:
    return np.zeros_like(values)


def break_layer(
    artifact: Artifact, place: int, fault: Callable[[Array], Array], folder: Path
) -> tuple[Artifact, str]:
    """Write a copy with the weights of weighted layer number `place` changed; return it and the layer's name."""
    folder.mkdir(parents=True)
    breaks = {"onnxruntime": _break_onnx, "openvino": _break_openvino, "litert": _break_tflite}
    path = folder / artifact.path.name
    name = breaks[artifact.target.runtime](artifact.path, place, fault, path)
    files = tuple(folder / file.name for file in artifact.files)
    return replace(artifact, files=files, sha256=sha256_of_files(files)), name


def _break_onnx(source: Path, place: int, fault: Callable[[Array], Array], path: Path) -> str:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    layer = [node for node in model.graph.node if node.op_type in WEIGHTED["onnxruntime"]][place]
    makers = {node.output[0]: node for node in model.graph.node}
    weights = layer.input[1]
    while weights in makers:
        weights = makers[weights].input[0]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == weights)
    tensor.CopyFrom(numpy_helper.from_array(fault(numpy_helper.to_array(tensor)), weights))
    onnx.save(model, path)
    return str(layer.name)


def _break_openvino(source: Path, place: int, fault: Callable[[Array], Array], path: Path) -> str:
    import openvino

    model = openvino.Core().read_model(source)
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in WEIGHTED["openvino"]]
    node = layers[place].input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    node.output(0).replace(openvino.opset13.constant(fault(np.array(node.data))).output(0))
    openvino.save_model(model, str(path), compress_to_fp16=False)
    layer = layers[place]
    while re.fullmatch(
        r"[A-Z]\w*_\d+", layer.get_friendly_name()
    ):  # counted up: the next operator has the name
        (reader,) = layer.output(0).get_target_inputs()
        layer = reader.get_node()
    return str(layer.get_friendly_name())


def _break_tflite(source: Path, place: int, fault: Callable[[Array], Array], path: Path) -> str:
    model = litert_file.read(source)
    graph = model.subgraphs[0]
    layers = [
        op
        for op in graph.operators
        if litert_file.operator_name(model.operatorCodes[op.opcodeIndex]) in WEIGHTED["litert"]
    ]
    makers = {int(op.outputs[0]): op for op in graph.operators if op.outputs is not None}
    assert layers[place].inputs is not None
    index = int(layers[place].inputs[1])
    while index in makers:
        index = int(makers[index].inputs[0])  # type: ignore[index]
    tensor = graph.tensors[index]
    buffer = model.buffers[tensor.buffer]
    dtype = litert_file.dtype_name(tensor)
    values = np.frombuffer(bytes(buffer.data), dtype)  # type: ignore[arg-type]
    buffer.data = np.frombuffer(fault(values).tobytes(), np.uint8)
    litert_file.write(model, path)
    return litert_file.tensor_name(graph, int(layers[place].outputs[0]))  # type: ignore[index]


def named(phrase: str) -> str:
    """Return the layer that the phrase names, or "" for no phrase."""
    return phrase.removeprefix("first diverging layer: ").partition(" (")[0].removeprefix("...")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("precision", "place", "fault"),
    [
        ("fp16", 2, zeroed),
        ("w8", 1, permuted),
        ("w8a8", 0, permuted),
        ("w8a8", 1, permuted),
        ("w8a8", 3, zeroed),
    ],
)
def test_a_broken_layer_is_named(
    case: Case, tmp_path: Path, runtime: str, precision: str, place: int, fault: Callable[[Array], Array]
) -> None:
    twin = case.artifact(runtime, "fp32")
    broken, layer = break_layer(case.artifact(runtime, precision), place, fault, tmp_path / "broken")
    phrase = first_divergence(broken, twin, case.program, case.data)
    assert phrase.startswith("first diverging layer: ")
    assert layer.endswith(named(phrase))
    assert "could not be compared" not in phrase


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["fp16", "w8", "w8a8"])
def test_a_sound_model_diverges_nowhere(case: Case, runtime: str, precision: str) -> None:
    records = {"artifact": case.artifact(runtime, precision), "twin": case.artifact(runtime, "fp32")}
    arguments = {name: artifact.to_json() for name, artifact in records.items()}
    answer = call_once(FIND, {**arguments, "program": case.program.to_json(), "data": str(case.data)})
    assert answer["phrase"] == ""
    assert int(str(answer["compared"])) >= 6  # four weighted layers, a pooling, a mean; the sum in most


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_fp32_is_compared_with_its_onnx_source(tmp_path: Path, runtime: str) -> None:
    program = programs.cnn_onnx(tmp_path / "source")
    data = save_data(tmp_path / "data", (N_SAMPLES, *programs.CNN_IMAGE))
    sound = convert(program, runtime, "fp32", tmp_path / "sound")
    assert first_divergence(sound, None, program, data) == ""
    for place in range(4):
        broken, layer = break_layer(sound, place, permuted, tmp_path / f"broken-{place}")
        assert named(first_divergence(broken, None, program, data)) == layer


@pytest.mark.toolchain("ai_edge_litert")
@pytest.mark.parametrize("place", [0, 4, 7, 9])
def test_a_real_model_broken_in_one_layer(assets: Path, tmp_path: Path, place: int) -> None:
    """MLPerf Tiny keyword spotting, against its own source."""
    path = assets / "models/mlperf-tiny/kws_dscnn_fp32.tflite"
    inputs, outputs = litert_file.signature(litert_file.read(path))
    program = Program(
        path=path,
        format="tflite",
        inputs=inputs,
        outputs=outputs,
        sha256=sha256_of(path),
        origin=str(path),
        origin_format="tflite",
    )
    data = save_data(tmp_path / "data", (N_SAMPLES, 49, 10, 1))
    sound = convert(program, "litert", "fp32", tmp_path / "sound")
    assert first_divergence(sound, None, program, data) == ""
    broken, layer = break_layer(sound, place, permuted, tmp_path / "broken")
    assert layer.endswith(named(first_divergence(broken, None, program, data)))


def outlier_module() -> nn.Module:
    """Return a CNN whose third layer has one channel a thousand times the others, which the next layer ignores."""
    import torch
    from torch import nn

    torch.manual_seed(3)
    layers = [nn.Conv2d(1 if i == 0 else 16, 16, 3, padding=1) for i in range(5)]
    with torch.no_grad():
        layers[2].weight[0] = layers[2].weight[0].abs() * 3000.0
        layers[3].weight[:, 0] = 0.0
    stack = [step for layer in layers for step in (layer, nn.ReLU())]
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()


@pytest.mark.slow
def test_a_build_names_the_layer_after_an_outlier(tmp_path: Path) -> None:
    import torch

    images = np.random.default_rng(5).normal(0.3, 1.0, (64, 1, 8, 8)).astype(np.float32)
    result = build(
        outlier_module(),
        example_inputs=torch.zeros(1, 1, 8, 8),
        data=images,
        to=RUNTIMES,
        precision=("fp32", "w8a8"),
        out=tmp_path / "out",
        use_cache=False,
    )
    for row in result.results:
        if row.target.precision is Precision.FP32:
            assert (row.status, row.reason) == (Status.OK, "")
            continue
        assert row.status is Status.DEGRADED
        assert "differs from the source" in row.reason
        # Of the third layer's output the outlier is nearly all the energy: what is lost shows in the fourth.
        layer = row.reason.partition("first diverging layer: ")[2].partition(" (")[0]
        assert any(number in layer for number in ("conv2d_3", "convolution_3", "Conv2d_6")), row.reason


def layer(
    name: str,
    operator: str = "Conv",
    size: int = 4,
    *,
    is_weighted: bool = True,
    sources: tuple[int, ...] = (),
) -> TracedLayer:
    output = np.arange(size, dtype=np.float32)
    return TracedLayer(
        names=(name,), operator=operator, is_weighted=is_weighted, sources=sources, output=output
    )


def test_layers_pair_by_name() -> None:
    expected = [layer("a"), layer("add", "Add", is_weighted=False), layer("b")]
    got = [layer("a"), layer("b")]
    assert pair_layers(expected, got, is_same_runtime=True) == [(0, 0), (2, 1)]


def test_renamed_layers_pair_by_position_only_when_the_graphs_are_alike() -> None:
    expected = [layer("a"), layer("b", size=5)]
    assert pair_layers(expected, [layer("x"), layer("y", size=5)], is_same_runtime=True) == [(0, 0), (1, 1)]
    assert pair_layers(expected, [layer("x"), layer("y")], is_same_runtime=True) == []
    assert pair_layers(expected, [layer("x", "Gemm"), layer("y", size=5)], is_same_runtime=True) == []
    assert pair_layers(expected, [layer("x"), layer("y", size=5, sources=(0,))], is_same_runtime=True) == []
    assert pair_layers(expected, [layer("x")], is_same_runtime=True) == []
    assert pair_layers(expected, [layer("x"), layer("y", size=5)], is_same_runtime=False) == []


def test_parallel_branches_pair_by_name_in_either_order() -> None:
    got = [layer("b"), layer("a")]
    assert pair_layers([layer("a"), layer("b")], got, is_same_runtime=True) == [(0, 1), (1, 0)]


def test_names_that_contradict_positions_pair_nothing() -> None:
    expected, got = [layer("a"), layer("b"), layer("c")], [layer("b"), layer("a"), layer("x")]
    assert pair_layers(expected, got, is_same_runtime=True) == []


def test_noise_that_later_layers_take_away_is_not_named() -> None:
    comparison = Comparison(is_same_runtime=True)
    draw = np.random.default_rng(2)
    for _ in range(N_SAMPLES):
        values = draw.normal(size=64).astype(np.float32)
        noisy = values + draw.normal(size=64).astype(np.float32)
        sound = [replace(layer(name), output=values) for name in "abcd"]
        comparison.add(sound, [sound[0], replace(sound[1], output=noisy), *sound[2:]])
    assert comparison.phrase("w8a8") == ""


def test_not_a_number_diverges() -> None:
    comparison = Comparison(is_same_runtime=True)
    values = np.ones(4, dtype=np.float32)
    sound = [replace(layer(name), output=values) for name in "ab"]
    broken = [sound[0], replace(sound[1], output=np.full(4, np.nan, dtype=np.float32))]
    comparison.add(sound, broken)
    assert named(comparison.phrase("fp32")) == "b"


def test_a_block_ends_after_its_activation_and_rounding() -> None:
    def node(operator: str, inputs: str, output: str) -> trace.Node:
        return trace.Node(names=(output,), operator=operator, inputs=tuple(inputs.split()), output=output)

    floats = [
        node("Conv", "x w", "conv"),
        node("Add", "conv bias", "biased"),
        node("Relu", "biased", "relu"),
        node("Add", "relu x", "sum"),
    ]
    rounded = [
        node("DequantizeLinear", "w8", "w"),
        node("Conv", "x w", "conv"),  # the clipping at the quantizer's zero point stands for the Relu
        node("QuantizeLinear", "conv scale", "q"),
        node("DequantizeLinear", "q scale", "dq"),
        node("Add", "dq x", "sum"),
    ]
    found = trace.blocks(floats, frozenset({"w", "bias"}), frozenset({"sum"}), trace_onnx.OPERATORS)
    assert [(b.operator, b.tensor, b.is_weighted) for b in found] == [
        ("Conv", "relu", True),
        ("Add", "sum", False),
    ]
    found = trace.blocks(rounded, frozenset({"w8", "scale"}), frozenset({"sum"}), trace_onnx.OPERATORS)
    assert [(b.operator, b.tensor, b.names) for b in found] == [
        ("Conv", "dq", ("conv",)),
        ("Add", "sum", ("sum",)),
    ]


def test_tensors_are_left_out_beyond_the_limit() -> None:
    assert trace.within({"big": 100, "small": 10, "mid": 20}, 40) == ["small", "mid"]


def test_a_model_that_cannot_be_traced_is_left_unexplained(tmp_path: Path) -> None:
    program = programs.cnn_onnx(tmp_path / "source")
    data = save_data(tmp_path / "data", (N_SAMPLES, *programs.CNN_IMAGE))
    made = convert(program, "onnxruntime", "fp32", tmp_path / "made")
    made.path.write_bytes(b"not a model")
    assert first_divergence(made, None, program, data) == ""
