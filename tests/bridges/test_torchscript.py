"""TorchScript to torch.export and back: signature, numbers, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs, torchscript_programs

from edgewright.backends.reference import ReferenceBackend
from edgewright.bridges.torchscript import TorchScriptToTorch, TorchToTorchScript
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.program import Program
from edgewright.core.target import Target
from edgewright.core.tensors import Arrays
from edgewright.sources import load_module

pytestmark = [
    pytest.mark.toolchain("torch"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]


def outputs(program: Program, given: Arrays, folder: Path) -> Arrays:
    backend, target = ReferenceBackend(), Target(runtime="reference")
    session = backend.open(backend.convert(program, target, None, folder), target)
    return session.run(given)


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_there_and_back_keeps_signature_and_numbers(name: str, tmp_path: Path) -> None:
    source: Program = getattr(torchscript_programs, f"{name}_torchscript")(tmp_path)
    exported = TorchScriptToTorch().convert(source, tmp_path / "pt2")
    again = TorchToTorchScript().convert(exported, tmp_path / "torchscript")
    draw = np.random.default_rng(4)
    given = {
        s.name: draw.normal(size=(3, *(size or 1 for size in s.shape[1:]))).astype(np.float32)
        for s in source.inputs
    }
    want = outputs(source, given, tmp_path)
    for made, form in ((exported, "pt2"), (again, "torchscript")):
        assert made.format == form
        assert (made.inputs, made.outputs) == (source.inputs, source.outputs)
        for key, got in outputs(made, given, tmp_path).items():
            np.testing.assert_allclose(got, want[key], atol=1e-6)
    assert len(again.history) == 2


def test_convolutions_become_those_that_quantizers_know(tmp_path: Path) -> None:
    from edgewright.backends.vendor import load_exported

    exported = TorchScriptToTorch().convert(torchscript_programs.cnn_torchscript(tmp_path), tmp_path / "pt2")
    called = [str(node.target) for node in load_exported(exported).graph.nodes if node.op == "call_function"]
    assert called.count("aten.conv2d.default") == 3
    assert "aten.convolution.default" not in called


def test_a_batch_that_a_trace_fixes_becomes_static(tmp_path: Path) -> None:
    import torch

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = x
            for _ in range(x.shape[0]):  # unrolled by a trace
                total = total + 1.0
            return total

    source = programs.mlp_pt2(tmp_path)
    exported = torch.export.export(Fixed(), (torch.zeros(1, 4),))
    torch.export.save(exported, tmp_path / "fixed.pt2")
    one = replace(source.inputs[0], name="x", shape=(1, 4))
    program = replace(source, path=tmp_path / "fixed.pt2", inputs=(one,), outputs=(replace(one, name="y"),))
    made = TorchToTorchScript().convert(program, tmp_path / "made")
    assert made.inputs[0].shape == (1, 4)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_state_that_a_trace_fixes_makes_the_batch_static(kind: str, tmp_path: Path) -> None:
    import torch

    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = getattr(torch.nn, kind)(4, 6, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = self.cell(x)[0]
            assert isinstance(made, torch.Tensor)
            return made

    program = load_module(Recurrent().eval(), torch.ones(2, 5, 4), workdir=tmp_path)
    assert program.inputs[0].shape == (None, 5, 4)
    made = TorchToTorchScript().convert(program, tmp_path / "made")
    assert made.inputs[0].shape == (1, 5, 4)
    x = np.random.default_rng(3).normal(size=(1, 5, 4)).astype(np.float32)
    want = outputs(program, {"x": x}, tmp_path)["output"]
    np.testing.assert_allclose(outputs(made, {"x": x}, tmp_path)["output"], want, atol=1e-6)


def test_refuses_other_formats_and_other_numbers(tmp_path: Path) -> None:
    import torch

    source = programs.mlp_pt2(tmp_path)
    with pytest.raises(FormatMismatchError):
        TorchScriptToTorch().convert(source, tmp_path)
    with pytest.raises(FormatMismatchError):
        TorchToTorchScript().convert(replace(source, precision="w8a8"), tmp_path)

    class Random(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    torch.jit.script(Random()).save(str(tmp_path / "random.torchscript"))
    spec = replace(source.inputs[0], name="x", shape=(1, 4))
    program = replace(
        source, path=tmp_path / "random.torchscript", format="torchscript", inputs=(spec,), outputs=(spec,)
    )
    with pytest.raises(ConversionError, match="difference"):
        TorchScriptToTorch().convert(program, tmp_path / "made")
