"""What cannot become C is refused by name before anything is written; broken files and names are errors, no crashes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.microcontrollers.c_models import run_rows
from tests.microcontrollers.generated import KINDS, Maker

from edgewright.core.errors import ConversionError, EdgewrightError, IntegrityError, UsageError
from edgewright.microcontrollers.emit import compile_model
from edgewright.microcontrollers.layer import Site, UnsupportedError
from edgewright.microcontrollers.names import identifier
from edgewright.microcontrollers.reader import read_graph
from edgewright.microcontrollers.registry import KERNELS

pytestmark = pytest.mark.toolchain("ai_edge_litert")
HELLO = "models/tflite-micro/hello_world_int8.tflite"


@pytest.mark.parametrize("name", ["", "2nd", "my model", "naïve", "int", "main", "a" * 49, "x-y"])
def test_a_name_that_is_no_identifier_is_refused_with_one_that_is(name: str, assets: Path) -> None:
    with pytest.raises(UsageError, match="Call it"):
        compile_model(assets / HELLO, name=name)
    compile_model(assets / HELLO, name=identifier(name))


@pytest.mark.parametrize(
    ("file", "operators"),
    [
        ("tflite-micro/audio_preprocessor_int8.tflite", ["custom SignalWindow", "CAST", "uint32"]),
        ("coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite", ["custom edgetpu-custom-op"]),
        (
            "coral/mobilenet_v1_0.25_128_quant.tflite",
            ["CONV_2D (operator 0 and 14 more)", "uint8/uint8/uint8"],
        ),
        (
            "mlperf-tiny/kws_dscnn_fp32.tflite",
            ["CONV_2D (operator 0 and 4 more): types float32/int8/float32"],
        ),
    ],
)
def test_every_operator_that_is_not_covered_is_named(file: str, operators: list[str], assets: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        compile_model(assets / "models" / file, name="model")
    for operator in operators:
        assert operator in str(caught.value)


def test_damaged_files_are_refused(assets: Path, tmp_path: Path) -> None:
    content = (assets / HELLO).read_bytes()
    path = tmp_path / "damaged.tflite"
    draw = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in draw.integers(0, len(content), int(draw.integers(1, 6))):
            damaged[place] = int(draw.integers(0, 256))
        path.write_bytes(
            bytes(damaged[: len(damaged) if draw.random() < 0.8 else int(draw.integers(8, len(damaged)))])
        )
        try:
            compile_model(path, name="model")
        except EdgewrightError:
            refused += 1
    assert refused > 30


def test_an_operator_that_reads_what_nothing_made_is_broken(tmp_path: Path) -> None:
    made = Maker()
    x, unmade, y = (made.tensor((1, 4), scale=0.5) for _ in range(3))
    made.operator("ADD", [x, unmade], [y], table="AddOptions")
    with pytest.raises(IntegrityError, match="out of order"):
        compile_model(made.write(tmp_path / "broken.tflite", [x], [y]), name="model")


def _layer(
    kind: str, *, axis: int, channels: int = 3, weight_type: str = "int8", real_type: str = "int8"
) -> Maker:
    """Return a model of one layer on [1, 4, 4, 3] whose weights have their scales along `axis`."""
    made = Maker()
    scale = None if real_type == "float32" else 0.5
    x = made.tensor((1, 4, 4, 3), real_type, scale=scale)
    shape = {"CONV_2D": (channels, 1, 1, 3), "DEPTHWISE_CONV_2D": (1, 1, 1, 3)}.get(kind, (channels, 3))
    scales = [0.1, 0.2, 0.3][: shape[axis]] if shape[axis] > 1 else [0.1]
    w = made.tensor(shape, weight_type, scale=scales, axis=axis, value=np.ones(shape, dtype=np.int8))
    out = (16, channels) if kind == "FULLY_CONNECTED" else (1, 4, 4, channels)
    y = made.tensor(out, real_type, scale=scale)
    table = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}.get(
        kind, f"{kind}Options"
    )
    options: dict[str, object] = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    if kind == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = 1
    if kind == "FULLY_CONNECTED":
        table, options = "FullyConnectedOptions", {}
    made.operator(
        kind, [x, w, *([-1] if kind == "FULLY_CONNECTED" else [])], [y], table=table, options=options
    )
    made.feeds[x] = y
    return made


@pytest.mark.parametrize(("kind", "axis", "right"), [("CONV_2D", 3, 0), ("FULLY_CONNECTED", 1, 0)])
def test_scales_on_the_wrong_axis_are_refused(kind: str, axis: int, right: int, tmp_path: Path) -> None:
    made = _layer(kind, axis=axis)
    ((x, y),) = made.feeds.items()
    with pytest.raises(ConversionError, match=f"scales along axis {axis}, not {right}"):
        compile_model(made.write(tmp_path / "axis.tflite", [x], [y]), name="model")


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_hybrid_models_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    made = _layer(kind, axis=0, real_type="float32")
    ((x, y),) = made.feeds.items()
    with pytest.raises(ConversionError, match=rf"{kind} \(operator 0\): types float32/int8/float32"):
        compile_model(made.write(tmp_path / "hybrid.tflite", [x], [y]), name="model")


def test_dynamic_sizes_are_refused(tmp_path: Path) -> None:
    made = Maker()
    x, y = (made.tensor((1, 4), scale=0.5, signature=(-1, 4)) for _ in range(2))
    made.operator("RELU", [x], [y])
    path = made.write(tmp_path / "batch.tflite", [x], [y])
    compile_model(path, name="model")  # a free batch is made with its size in the file
    made = Maker()
    x, y = (made.tensor((1, 4), scale=0.5, signature=(1, -1)) for _ in range(2))
    made.operator("RELU", [x], [y])
    with pytest.raises(ConversionError, match=r"dynamic sizes \[1, -1\]"):
        compile_model(made.write(tmp_path / "dynamic.tflite", [x], [y]), name="model")


def test_zero_points_and_types_without_sense_are_refused(tmp_path: Path) -> None:
    made = Maker()
    x, y = (made.tensor((1, 4), scale=0.5, zero=128) for _ in range(2))
    made.operator("RELU", [x], [y])
    with pytest.raises(IntegrityError, match="a zero point that is no int8"):
        compile_model(made.write(tmp_path / "zero.tflite", [x], [y]), name="model")
    made = Maker()
    x, y = (made.tensor((1, 4), scale=0.5) for _ in range(2))
    text = made.tensor((1,), "string")
    made.operator("RELU", [x], [y])
    with pytest.raises(ConversionError, match="an input or output of string"):
        compile_model(made.write(tmp_path / "text.tflite", [x, text], [y]), name="model")


def test_constant_inputs_and_odd_multipliers_are_refused(tmp_path: Path) -> None:
    made = Maker()
    x, y = (made.tensor((1, 4), scale=0.5) for _ in range(2))
    known = made.tensor((1, 4), scale=0.5, value=np.ones((1, 4)))
    made.operator("ADD", [x, known], [y], table="AddOptions")
    with pytest.raises(IntegrityError, match="an input of the model is a constant"):
        compile_model(made.write(tmp_path / "constant.tflite", [x, known], [y]), name="model")
    made = Maker()
    x, y = (made.tensor((1, 4, 4, 3), scale=0.5) for _ in range(2))
    w = made.tensor((1, 1, 1, 3), scale=0.1, value=np.ones((1, 1, 1, 3)))
    options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1, "depthMultiplier": 2}
    made.operator("DEPTHWISE_CONV_2D", [x, w], [y], table="DepthwiseConv2DOptions", options=options)
    with pytest.raises(ConversionError, match="a multiplier of 2 for 3 to 3 channels"):
        compile_model(made.write(tmp_path / "multiplier.tflite", [x], [y]), name="model")


def test_a_variable_with_a_value_is_broken(tmp_path: Path) -> None:
    made = Maker()
    x, y = (made.tensor((1, 4), scale=0.5) for _ in range(2))
    odd = made.tensor((1, 4), scale=0.5, value=np.ones((1, 4)), is_variable=True)
    made.operator("ADD", [x, odd], [y], table="AddOptions")
    with pytest.raises(IntegrityError, match="a variable that has a value"):
        compile_model(made.write(tmp_path / "variable.tflite", [x], [y]), name="model")


def test_indices_out_of_range_are_refused_and_computed_ones_are_kept_within(tmp_path: Path) -> None:
    made = Maker()
    x, y = made.tensor((4, 2), scale=0.5), made.tensor((2, 2), scale=0.5)
    i = made.tensor((2,), "int32", value=np.array([0, 4]))
    made.operator("GATHER", [x, i], [y], table="GatherOptions")
    with pytest.raises(ConversionError, match="indices out of range"):
        compile_model(made.write(tmp_path / "constant.tflite", [x], [y]), name="model")
    made = Maker()
    x, y = made.tensor((4, 2), scale=0.5), made.tensor((3, 2), scale=0.5)
    i = made.tensor((3,), "int32")
    made.operator("GATHER", [x, i], [y], table="GatherOptions")
    values = np.arange(8, dtype=np.int8).reshape(4, 2)
    path = made.write(tmp_path / "computed.tflite", [x, i], [y])
    ((found,),) = run_rows(path, [[values, np.array([-5, 2, 70], dtype=np.int32)]], tmp_path)
    np.testing.assert_array_equal(found, values[[0, 2, 3]])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("int16_hard_swish", "types int16/int16"),
        ("int16_resize_bilinear", "type int16"),
        ("int16_mirror_pad", "types int16/int16"),
    ],
)
def test_types_that_an_operator_is_not_made_of_are_named(kind: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.tflite"
    KINDS[kind](np.random.default_rng(1), path)
    with pytest.raises(ConversionError, match=reason):
        compile_model(path, name="model")


@pytest.mark.parametrize(
    "kind", ["slice", "mirror_pad", "unidirectional_sequence_lstm", "transpose", "pad", "split"]
)
def test_tensors_of_another_rank_are_refused(kind: str, tmp_path: Path) -> None:
    KINDS[kind](np.random.default_rng(3), tmp_path / "made.tflite")
    graph = read_graph(tmp_path / "made.tflite")
    tried = 0
    for operator in graph.operators:
        for index in (*operator.inputs[:2], *operator.outputs[:1]):
            tensor = graph.tensor(index)
            for shape in ((), (tensor.count,), (1, *tensor.shape), (*tensor.shape, 1)):
                if shape == tensor.shape or int(np.prod(shape)) != tensor.count:
                    continue
                value = None if tensor.value is None else tensor.value.reshape(shape)
                changed = replace(tensor, shape=shape, value=value)
                broken = replace(
                    graph, tensors=tuple(changed if one is tensor else one for one in graph.tensors)
                )
                tried += 1
                # Some fit even so, such as a list of axes that is called a table; no other error is right.
                with contextlib.suppress(UnsupportedError):
                    KERNELS[operator.name](Site(graph=broken, operator=operator, prefix="model"))
    assert tried > 2
