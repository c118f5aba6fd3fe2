"""A program as a module: the same numbers, layers under their names, training, folding, and back again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.backends import programs
from torch import Tensor, nn

from edgewright.compress.module import (
    find_layer,
    fold_batch_norm,
    outside_layers,
    select_layers,
    to_module,
    to_program,
    trace,
    weighted_layers,
)
from edgewright.compress.quantize import quantize_pt2e
from edgewright.core.errors import FormatMismatchError, UnknownNameError
from edgewright.core.program import Program
from edgewright.core.target import Precision
from edgewright.sources import load_module

pytestmark = pytest.mark.toolchain("torch", "torchao")


class Mixed(nn.Module):
    """One of most kinds of layers, a view with a fixed size, a shared layer and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.GroupNorm(2, 8)
        self.activation = nn.PReLU(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.gain = nn.Parameter(torch.full((4, 1, 1), 1.5))
        self.drop = nn.Dropout(0.5)
        self.shared = nn.Linear(4 * 16 * 16, 4 * 16 * 16)
        self.head = nn.Sequential(nn.LayerNorm(4 * 16 * 16), nn.Linear(4 * 16 * 16, 5))

    def forward(self, image: Tensor) -> Tensor:
        features = self.activation(self.norm(self.depthwise(self.stem(image))))
        flat = (self.up(features) * self.gain).view(-1, 4 * 16 * 16)
        logits: Tensor = self.head(self.shared(self.drop(self.shared(flat))))
        return logits


@pytest.fixture(scope="module")
def mixed() -> Mixed:
    torch.manual_seed(3)
    module = Mixed()
    module.train()
    with torch.no_grad():
        for _ in range(4):  # statistics of its own for the normalisation
            module(torch.randn(16, 3, 8, 8) * 2 + 1)
    return module.eval()


@pytest.fixture
def program(mixed: Mixed, tmp_path: Path) -> Program:
    return load_module(mixed, (torch.randn(2, 3, 8, 8),), workdir=tmp_path / "source", layout=None)


def test_module_computes_the_same(mixed: Mixed, program: Program) -> None:
    images = torch.randn(5, 3, 8, 8)
    assert torch.equal(to_module(program)(images), mixed(images))


def test_layers_have_the_names_and_kinds_of_the_source(program: Program) -> None:
    module = to_module(program)
    kinds = {name: type(layer).__name__ for name, layer in module.named_modules()}
    assert kinds["stem.0"] == "Conv2d" and kinds["stem.1"] == "BatchNorm2d"
    assert kinds["depthwise"] == "Conv2d" and kinds["norm"] == "GroupNorm"
    assert kinds["activation"] == "PReLU" and kinds["up"] == "ConvTranspose2d"
    assert kinds["head.0"] == "LayerNorm" and kinds["head.1"] == "Linear"
    assert list(weighted_layers(module)) == ["stem.0", "depthwise", "up", "shared", "head.1"]
    assert "gain" in dict(module.named_parameters())


def test_a_layer_called_twice_stays_one_layer(program: Program) -> None:
    module = to_module(program)
    calls = [node.target for node in module.graph.nodes if node.op == "call_module"]
    assert calls.count("shared") == 2


def test_modes_follow_train_and_eval(program: Program) -> None:
    module, images = to_module(program), torch.randn(32, 3, 8, 8)
    before = find_layer(module, "stem.1").running_mean.clone()  # type: ignore[union-attr, operator]
    module.train()
    assert not torch.equal(module(images), module(images))  # dropout
    assert not torch.equal(find_layer(module, "stem.1").running_mean, before)  # type: ignore[arg-type]
    module.eval()
    assert torch.equal(module(images), module(images))


def test_every_parameter_gets_a_gradient(program: Program) -> None:
    module = to_module(program).train()
    module(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


def test_program_of_the_module_keeps_names_and_numbers(program: Program, tmp_path: Path) -> None:
    images = torch.randn(4, 3, 8, 8)
    module = to_module(program)
    with torch.no_grad():
        find_layer(module, "head.1").bias.add_(1)  # type: ignore[union-attr, operator]
    made = to_program(module, program, (images,), folder=tmp_path / "step", step="add one")
    assert made.path == tmp_path / "step" / "model.pt2"
    assert [str(s) for s in (*made.inputs, *made.outputs)] == [
        str(s) for s in (*program.inputs, *program.outputs)
    ]
    assert made.history == (*program.history, "add one") and made.sha256 != program.sha256
    again = to_module(made)
    torch.testing.assert_close(again(images), module(images))
    assert list(weighted_layers(again)) == list(weighted_layers(module))


def test_fixed_view_holds_for_fewer_channels(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 6, 3)

        def forward(self, image: Tensor) -> Tensor:
            made: Tensor = self.conv(image).reshape(image.shape[0], 6 * 6 * 6)
            return made

    module = trace(Fixed(), (torch.randn(2, 1, 8, 8),))
    conv = find_layer(module, "conv")
    conv.weight, conv.bias = nn.Parameter(conv.weight[:4]), nn.Parameter(conv.bias[:4])  # type: ignore[index]
    assert module(torch.randn(3, 1, 8, 8)).shape == (3, 4 * 6 * 6)


def test_folding_keeps_the_numbers(program: Program) -> None:
    module, images = to_module(program), torch.randn(6, 3, 8, 8)
    folded = fold_batch_norm(module)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert find_layer(folded, "stem.0").bias is not None
    torch.testing.assert_close(folded(images), module(images), rtol=1e-4, atol=1e-5)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())  # the given one is untouched


def test_normalisation_of_a_value_with_other_users_stays() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, image: Tensor) -> Tensor:
            value = self.conv(image)
            made: Tensor = self.norm(value) + value
            return made

    folded = fold_batch_norm(trace(Branch(), (torch.randn(2, 2, 4, 4),)))
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())


def test_quantized_program_trains_and_comes_back_equal(tmp_path: Path) -> None:
    source = programs.cnn_pt2(tmp_path)
    calibration = programs.calibration_for(source, tmp_path)
    quantized = quantize_pt2e(
        source, precision=Precision.W8A8, calibration=calibration, workdir=tmp_path / "q"
    )
    with np.load(calibration.path) as archive:
        samples = [torch.from_numpy(archive[spec.name][:4]) for spec in quantized.inputs]
    module = to_module(quantized)
    expected = module(*samples)
    module.train()
    torch.testing.assert_close(module(*samples), expected, rtol=0, atol=1e-6)  # the same integers
    module(*samples).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
    made = to_program(module.eval(), quantized, samples, folder=tmp_path / "step", step="nothing")
    assert made.precision == "w8a8"
    assert torch.equal(to_module(made)(*samples), expected)


def test_names_and_globs_select_layers(program: Program) -> None:
    module = to_module(program)
    assert list(select_layers(module, ["head.*", "stem.0"])) == ["stem.0", "head.1"]
    with pytest.raises(UnknownNameError, match=r"unknown layer 'depthwize'.*Did you mean 'depthwise'"):
        select_layers(module, ["depthwize"])
    with pytest.raises(UnknownNameError, match=r"Did you mean 'stem\.1'"):
        find_layer(module, "stem.11")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatMismatchError, match="is onnx"):
        to_module(programs.cnn_onnx(tmp_path))


def test_matrices_outside_layers_are_told() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(8, 16)
            self.head = nn.Linear(16, 3)

    (note,) = outside_layers(Recurrent())
    assert note == (
        "1,536 of 1,715 parameters are in no convolution or linear layer and stay as they are: "
        "cell.weight_hh_l0, cell.weight_ih_l0."
    )
    assert outside_layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))) == ()
