"""Bias correction: it moves biases alone, by what rounding shifts on average, layer after layer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.compress.quantized_pairs import Pair, make_pair

from edgewright.compress.bias_correction import correct_biases
from edgewright.compress.int8_quantizer import LayerScheme
from edgewright.compress.module import weighted_layers
from edgewright.compress.replay import mean_of_channels
from edgewright.core.errors import ConversionError

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

pytestmark = pytest.mark.toolchain("torch", "torchao")
LAYERS = ("stem", "depthwise", "pointwise", "classify")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return weights of 4 bits: they shift outputs by more than int8 does."""
    layers = dict.fromkeys(LAYERS, LayerScheme.W4A8)
    return make_pair(tmp_path_factory.mktemp("bias"), layers=layers)


def layer_means(module: GraphModule, name: str, batches: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
    """Return the mean of each output channel of a layer: float64 [channels]."""
    import torch

    found: list[torch.Tensor] = []
    handle = module.get_submodule(name).register_forward_hook(lambda _, __, output: found.append(output))
    with torch.no_grad():
        for batch in batches:
            module(*batch)
    handle.remove()
    return mean_of_channels(found, -1 if name == "classify" else 1)


def test_every_layer_has_the_mean_of_the_float_one(pair: Pair) -> None:
    import torch

    corrected = copy.deepcopy(pair.quantized)
    before = {name: layer.weight.clone() for name, layer in weighted_layers(corrected).items()}  # type: ignore[operator, union-attr]
    shares = correct_biases(pair.reference, corrected, pair.batches)
    assert set(shares) == set(LAYERS)
    assert max(shares.values()) > 1e-3
    for name in LAYERS:
        want = layer_means(pair.reference, name, pair.batches)
        was = (layer_means(pair.quantized, name, pair.batches) - want).abs().max()
        now = (layer_means(corrected, name, pair.batches) - want).abs().max()
        assert now < 1e-5 * float(want.abs().max()) + 1e-6
        assert was > 100 * now
        assert torch.equal(corrected.get_submodule(name).weight, before[name])  # type: ignore[arg-type]


def test_layer_without_a_bias_gets_one(pair: Pair) -> None:
    corrected = copy.deepcopy(pair.quantized)
    assert corrected.get_submodule("classify").bias is None
    correct_biases(pair.reference, corrected, pair.batches)
    assert corrected.get_submodule("classify").bias is not None


def test_float_module_has_nothing_to_correct(pair: Pair) -> None:
    with pytest.raises(ConversionError, match="no quantized layer"):
        correct_biases(pair.reference, pair.reference, pair.batches)


def test_quantized_sums_do_not_stand_in_the_way(tmp_path: Path) -> None:
    plain = make_pair(tmp_path)
    names = [str(node.target) for node in plain.quantized.graph.nodes]
    assert "aten.add.Tensor" in names
    assert set(correct_biases(plain.reference, plain.quantized, plain.batches)) == set(LAYERS)
