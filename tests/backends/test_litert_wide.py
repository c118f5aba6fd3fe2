"""LiteRT keeps 64-bit and unsigned signatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgewright.backends.litert import LiteRTBackend
from edgewright.core.artifact import Artifact
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array
from edgewright.sources.torch_export import export_module

TARGET = Target(runtime="litert", precision=Precision.FP32)


def convert(module: torch.nn.Module, example: torch.Tensor, folder: Path) -> Artifact:
    program = export_module(module.eval(), [example], workdir=folder, origin="test:module")
    return LiteRTBackend().convert(program, TARGET, None, folder / "litert")


def run(artifact: Artifact, value: Array) -> Array:
    session = LiteRTBackend().open(artifact, TARGET)
    try:
        (result,) = session.run({artifact.inputs[0].name: value}).values()
    finally:
        session.close()
    return result


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


class Next(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(torch.int64) + 1).to(x.dtype)


class Bits(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(torch.int32)


def test_int64_stays_int64(tmp_path: Path) -> None:
    artifact = convert(Doubled(), torch.ones(1, 3, dtype=torch.int64), tmp_path)
    assert (artifact.inputs[0].dtype, artifact.outputs[0].dtype) == ("int64", "int64")
    large = np.int64([[1 << 40, -3, 0]])
    np.testing.assert_array_equal(run(artifact, large), large * 2)
    assert any("int64" in note for note in artifact.notes)


def test_float64_stays_float64(tmp_path: Path) -> None:
    artifact = convert(Doubled(), torch.ones(1, 3, dtype=torch.float64), tmp_path)
    assert (artifact.inputs[0].dtype, artifact.outputs[0].dtype) == ("float64", "float64")
    np.testing.assert_allclose(run(artifact, np.float64([[-0.1, 2, -3]])), [[-0.2, 4, -6]], rtol=1e-6)


def test_unsigned_16_bits_are_kept(tmp_path: Path) -> None:
    artifact = convert(Next(), torch.ones(1, 2, dtype=torch.uint16), tmp_path)
    assert (artifact.inputs[0].dtype, artifact.outputs[0].dtype) == ("uint16", "uint16")
    np.testing.assert_array_equal(run(artifact, np.uint16([[40000, 7]])), [[40001, 8]])


def test_bits_are_read_as_another_type(tmp_path: Path) -> None:
    artifact = convert(Bits(), torch.ones(1, 2), tmp_path)
    value = np.float32([[1.5, -0.0]])
    np.testing.assert_array_equal(run(artifact, value), value.view(np.int32))
