"""Small programs for the tests of backends: a CNN, and an MLP with two inputs and two outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.contracts import Calibration
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec
from edgewright.sources.torch_digest import digest_exported

if TYPE_CHECKING:
    from torch import nn

CNN_IMAGE = (1, 8, 8)
MLP_FEATURES = (6, 3)


def cnn_module() -> nn.Module:
    """Return a seeded CNN with batch norm, a residual sum, pooling and a head: [n, 1, 8, 8] -> [n, 10]."""
    import torch
    from torch import nn

    class Cnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
            self.stem_norm = nn.BatchNorm2d(16)
            self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
            self.depthwise_norm = nn.BatchNorm2d(16)
            self.pointwise = nn.Conv2d(16, 64, 1)
            self.classify = nn.Linear(64, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem_norm(self.stem(image)))
            x = x + torch.relu(self.depthwise_norm(self.depthwise(x)))
            x = nn.functional.max_pool2d(x, 2)
            x = torch.relu(self.pointwise(x))
            return self.classify(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    torch.manual_seed(0)
    module = Cnn().train()
    for _ in range(4):
        module(torch.randn(32, *CNN_IMAGE) + 0.3)
    return module.eval()


def mlp_module() -> nn.Module:
    """Return a seeded MLP: (left [n, 6], right [n, 3]) -> (joined [n, 4], total [n, 1])."""
    import torch
    from torch import nn

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(9, 48)
            self.second = nn.Linear(48, 4)
            self.third = nn.Linear(48, 1)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = torch.relu(self.first(torch.cat([left, 2.0 * right], dim=1)))
            return self.second(hidden), self.third(hidden)

    torch.manual_seed(1)
    return Mlp().eval()


def cnn_pt2(folder: Path, *, is_dynamic: bool = True) -> Program:
    """Write the CNN as `cnn.pt2` into `folder` and return its program; the batch is 1 unless `is_dynamic`."""
    return _export(cnn_module(), folder / "cnn.pt2", {"image": CNN_IMAGE}, {"logits": (10,)}, is_dynamic)


def mlp_pt2(folder: Path, *, is_dynamic: bool = True) -> Program:
    """Write the MLP as `mlp.pt2` into `folder` and return its program; the batch is 1 unless `is_dynamic`."""
    inputs = {"left": MLP_FEATURES[:1], "right": MLP_FEATURES[1:]}
    return _export(mlp_module(), folder / "mlp.pt2", inputs, {"joined": (4,), "total": (1,)}, is_dynamic)


def _export(
    module: nn.Module,
    path: Path,
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
    is_dynamic: bool,
) -> Program:
    import torch

    batch = torch.export.Dim("batch", min=1, max=1024)
    size = 2 if is_dynamic else 1
    exported = torch.export.export(
        module,
        tuple(torch.zeros(size, *shape) for shape in inputs.values()),
        dynamic_shapes=tuple({0: batch} for _ in inputs) if is_dynamic else None,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(exported, path)
    return Program(
        path=path,
        format="pt2",
        inputs=_specs(inputs, is_dynamic),
        outputs=_specs(outputs, is_dynamic),
        sha256=digest_exported(exported),
        origin=str(path),
        origin_format="pt2",
    )


def _specs(shapes: dict[str, tuple[int, ...]], is_dynamic: bool) -> tuple[TensorSpec, ...]:
    batch = None if is_dynamic else 1
    return tuple(
        TensorSpec(name=name, shape=(batch, *shape), dtype="float32") for name, shape in shapes.items()
    )


def mlp_onnx(folder: Path, *, is_dynamic: bool = True, lists_initialisers: bool = False) -> Program:
    """Write an MLP with two inputs and outputs as `mlp.onnx`, opset 13; weights may be listed as inputs."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(2)
    weights = {
        "first": draw.normal(size=(9, 48)).astype(np.float32) / 3,
        "first_bias": draw.normal(size=48).astype(np.float32),
        "second": draw.normal(size=(48, 4)).astype(np.float32) / 7,
        "third": draw.normal(size=(1, 48)).astype(np.float32) / 7,
    }
    batch: str | int = "n" if is_dynamic else 1
    nodes = [
        helper.make_node("Concat", ["left", "right"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "first"], ["sums"]),
        helper.make_node("Add", ["sums", "first_bias"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["joined"]),
        helper.make_node("Gemm", ["hidden", "third"], ["total"], transB=1),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size])
        for name, size in (("left", 6), ("right", 3))
    ]
    listed = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        listed + inputs if lists_initialisers else inputs,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size])
            for name, size in (("joined", 4), ("total", 1))
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = folder / "mlp.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return _file_program(
        path,
        "onnx",
        _specs({"left": (6,), "right": (3,)}, is_dynamic),
        _specs({"joined": (4,), "total": (1,)}, is_dynamic),
    )


def cnn_onnx(folder: Path, *, is_dynamic: bool = True) -> Program:
    """Write the CNN as `cnn.onnx` (exported from torch) into `folder` and return its program."""
    import torch

    path = folder / "cnn.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.onnx.export(
        cnn_module(),
        (torch.zeros(2 if is_dynamic else 1, *CNN_IMAGE),),
        dynamo=True,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},) if is_dynamic else None,
        verbose=False,
    )
    assert exported is not None
    exported.save(path)
    return _file_program(
        path, "onnx", _specs({"image": CNN_IMAGE}, is_dynamic), _specs({"logits": (10,)}, is_dynamic)
    )


def cnn_tflite(folder: Path) -> Program:
    """Write the CNN as `cnn.tflite` (batch 1, NCHW input) into `folder` and return its program."""
    import litert_torch
    import torch
    from ai_edge_litert.interpreter import Interpreter

    path = folder / "cnn.tflite"
    path.parent.mkdir(parents=True, exist_ok=True)
    litert_torch.convert(cnn_module(), (torch.zeros(1, *CNN_IMAGE),)).export(str(path))
    interpreter = Interpreter(model_path=str(path))
    return _file_program(
        path,
        "tflite",
        (_tflite_spec(interpreter.get_input_details()[0]),),
        (_tflite_spec(interpreter.get_output_details()[0]),),
    )


def _tflite_spec(details: dict[str, object]) -> TensorSpec:
    shape = np.asarray(details["shape"]).tolist()
    return TensorSpec(name=str(details["name"]), shape=tuple(shape), dtype="float32")


def _file_program(
    path: Path, form: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> Program:
    return Program(
        path=path,
        format=form,
        inputs=inputs,
        outputs=outputs,
        sha256=sha256_of(path),
        origin=str(path),
        origin_format=form,
    )


def calibration_for(program: Program, folder: Path, *, count: int = 64, seed: int = 3) -> Calibration:
    """Write `count` seeded samples for every input of `program` and return the calibration."""
    draw = np.random.default_rng(seed)
    samples = {
        spec.name: draw.normal(0.3, 1.0, (count, *(int(d or 1) for d in spec.shape[1:]))).astype(np.float32)
        for spec in program.inputs
    }
    path = folder / "calibration.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **samples)  # type: ignore[arg-type]
    return Calibration(
        path=path, count=count, sha256=sha256_of(path), description=f"{count} seeded normal samples"
    )
