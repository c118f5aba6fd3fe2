"""Clustering: few values per layer, exactly; zeros and integer grids kept; codebooks that train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.backends import programs
from torch import nn

from edgewright.compress.checkpoints import ResumableFit, silent
from edgewright.compress.clustering import PASS, ClusterOptions, cluster, value_table
from edgewright.compress.kmeans import fit_codebook, nearest, squared_error
from edgewright.compress.module import to_module, weighted_layers
from edgewright.compress.passes import Bench
from edgewright.compress.quantize import quantize_pt2e
from edgewright.compress.sparsifying import sparsify, sparsity_table
from edgewright.compress.weight_modules import Codebook, hold, release
from edgewright.core.errors import ConversionError, TrainingError, UnknownNameError, UsageError
from edgewright.core.program import Program
from edgewright.core.target import Precision
from edgewright.sources import load_module

pytestmark = pytest.mark.toolchain("torch")


def train(module: nn.Module, epochs: int) -> None:
    """Pull the outputs to those of the module it was made from, for `epochs` steps, with weight decay."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9, weight_decay=0.001)
    images = torch.randn(32, *programs.CNN_IMAGE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = programs.cnn_module()(images)
    for _ in range(epochs):
        optimizer.zero_grad()
        (module(images) - wanted).square().mean().backward()
        optimizer.step()


def values_of(module: nn.Module) -> dict[str, int]:
    return {name: len(layer.weight.unique()) for name, layer in weighted_layers(module).items()}  # type: ignore[operator, union-attr]


def distance(module: nn.Module) -> float:
    images = torch.randn(64, *programs.CNN_IMAGE, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return float((module.eval()(images) - programs.cnn_module()(images)).square().mean())


@pytest.fixture
def cnn() -> nn.Module:
    return programs.cnn_module()


@pytest.mark.parametrize("init", ["kmeans++", "linear"])
@pytest.mark.parametrize("count", [2, 5, 16, 256])
def test_codebook_is_a_fixed_point_of_kmeans(init: str, count: int) -> None:
    values = np.random.default_rng(3).standard_normal(2000) ** 3
    codebook = fit_codebook(values, count, init=init, seed=0)  # type: ignore[arg-type]
    assert len(codebook) == count and (np.diff(codebook) > 0).all()
    places = nearest(values, codebook)
    assert np.array_equal(places, np.abs(values[:, None] - codebook).argmin(1))
    means = [values[places == place].mean() for place in np.unique(places)]
    np.testing.assert_allclose(codebook[np.unique(places)], means, rtol=1e-9)


def test_codebook_of_separate_heaps_is_their_means() -> None:
    generator = np.random.default_rng(1)
    heaps = [centre + 0.01 * generator.standard_normal(50) for centre in (-3.0, 0.5, 0.9, 7.0)]
    codebook = fit_codebook(np.concatenate(heaps), 4, init="kmeans++", seed=0)
    np.testing.assert_allclose(codebook, [heap.mean() for heap in heaps])


def test_few_values_are_kept_as_they_are() -> None:
    assert fit_codebook(np.array([2.0, 1.0, 2.0, -1.5]), 8, init="kmeans++", seed=0).tolist() == [
        -1.5,
        1.0,
        2.0,
    ]
    assert fit_codebook(np.full((3, 3), 0.25), 2, init="linear", seed=0).tolist() == [0.25]


def test_more_centres_are_never_worse() -> None:
    values = np.random.default_rng(9).standard_normal(5000)
    errors = [
        squared_error(values, fit_codebook(values, 2**bits, init="kmeans++", seed=0)) for bits in range(1, 9)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_layers_have_at_most_so_many_values(cnn: nn.Module, bits: int) -> None:
    clustered = cluster(cnn, bits=bits)
    assert all(count <= 2**bits for count in values_of(clustered).values())
    assert max(values_of(clustered).values()) == 2**bits
    assert not any("parametrizations" in name for name in clustered.state_dict())
    assert clustered.state_dict().keys() == cnn.state_dict().keys()
    assert max(values_of(cnn).values()) > 2**bits, "the given module is untouched"
    assert [row["values"] for row in value_table(clustered)] == list(values_of(clustered).values())


def test_layers_can_have_their_own_bits(cnn: nn.Module) -> None:
    counts = values_of(cluster(cnn, bits=2, layer_bits={"point*": 5}, skip=("stem",)))
    assert counts["pointwise"] == 32 and counts["classify"] == 4 and counts["stem"] == 144


def test_zeros_of_a_sparse_layer_stay_and_count_as_a_value(cnn: nn.Module) -> None:
    sparse = sparsify(cnn, sparsity=0.7)
    clustered = cluster(sparse, bits=2, train=train, epochs=4)
    assert sparsity_table(clustered) == sparsity_table(sparse)
    assert all(count <= 4 for count in values_of(clustered).values())


def test_layers_left_alone_keep_their_zeros_in_training(cnn: nn.Module) -> None:
    sparse = sparsify(cnn, sparsity=0.7)
    clustered = cluster(sparse, bits=2, layers=("classify",), train=train, epochs=4)
    assert sparsity_table(clustered) == sparsity_table(sparse)
    assert values_of(clustered)["pointwise"] > 4


def test_training_moves_the_values_and_helps(cnn: nn.Module) -> None:
    before, after = cluster(cnn, bits=2), cluster(cnn, bits=2, train=train, epochs=30)
    assert distance(after) < 0.7 * distance(before)
    assert all(count <= 4 for count in values_of(after).values())
    for name, layer in weighted_layers(after).items():
        assert isinstance(layer.weight, torch.Tensor)
        first = before.get_submodule(name).weight
        assert isinstance(first, torch.Tensor)
        pairs = torch.stack([first.flatten(), layer.weight.flatten()], 1).unique(dim=0)
        assert len(pairs) == len(first.unique()), f"{name}: which weights share a value does not change"


def test_gradient_of_a_value_is_the_mean_over_its_weights() -> None:
    layer = nn.Linear(3, 2, bias=False)
    indices = torch.tensor([[0, 1, 2], [1, 1, 2]])
    hold(layer, "weight", Codebook(torch.tensor([-1.0, 2.0]), indices, has_zero=True), title="layer")
    assert layer.weight.tolist() == [[0, -1, 2], [-1, -1, 2]]
    factors = torch.tensor([[10.0, 1.0, 2.0], [4.0, 1.0, 6.0]])
    (layer.weight * factors).sum().backward()
    gradient = layer.parametrizations.weight.original.grad  # type: ignore[union-attr, operator]
    assert gradient.tolist() == [(1 + 4 + 1) / 3, (2 + 6) / 2]
    release(layer, "weight")
    assert layer.weight.tolist() == [[0, -1, 2], [-1, -1, 2]] and isinstance(layer.weight, nn.Parameter)


def test_biases_can_share_values_too(cnn: nn.Module) -> None:
    clustered = cluster(cnn, bits=4, bias_bits=3, train=train, epochs=2)
    assert len(clustered.pointwise.bias.unique()) == 8  # type: ignore[union-attr, operator]


def test_a_layer_of_zeros_stays_zero_but_its_bias_trains(cnn: nn.Module) -> None:
    with torch.no_grad():
        cnn.classify.weight.zero_()  # type: ignore[operator, union-attr]
        cnn.classify.bias.zero_()  # type: ignore[operator, union-attr]
    clustered = cluster(cnn, bits=2, bias_bits=2, train=train, epochs=2)
    assert not clustered.classify.weight.any()  # type: ignore[operator, union-attr]
    assert len(clustered.classify.bias.unique()) == 1 and clustered.classify.bias.any()  # type: ignore[operator, union-attr]


@pytest.fixture
def program(cnn: nn.Module, tmp_path: Path) -> Program:
    images = torch.randn(4, *programs.CNN_IMAGE)
    return load_module(cnn, (images,), workdir=tmp_path / "source", layout=None)


def bench_of(program: Program, folder: Path) -> Bench:
    return Bench(
        folder=folder,
        calibration=[(torch.randn(4, *programs.CNN_IMAGE),)],
        labels=None,
        fit=ResumableFit(train, None),
        teacher=None,
        original=program,
        report=silent,
    )


def test_pass_writes_a_clustered_program(program: Program, tmp_path: Path) -> None:
    made = PASS.run(program, ClusterOptions(bits=3, epochs=2), bench_of(program, tmp_path / "step"))
    assert made.program.history[-1] == "cluster(3 bits)"
    assert all(count <= 8 for count in values_of(to_module(made.program)).values())
    entropy = made.facts["entropy bits per weight"]
    assert isinstance(entropy, float) and 1 < entropy <= 3
    assert [row["layer"] for row in made.tables["Values per layer"]] == list(values_of(to_module(program)))


def test_entropy_is_that_of_the_values() -> None:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [0.5, 0.5, 1, 2]]))
    (row,) = value_table(nn.Sequential(layer))
    assert row == {"layer": "0", "weights": 8, "values": 4, "entropy bits": 0.5 + 0.5 + 2 * 3 / 8}


@pytest.mark.toolchain("torchao")
def test_values_of_a_quantized_program_are_integers_of_its_grid(program: Program, tmp_path: Path) -> None:
    quantized = quantize_pt2e(
        program,
        precision=Precision.W8A8,
        calibration=programs.calibration_for(program, tmp_path),
        workdir=tmp_path,
    )
    made = PASS.run(quantized, ClusterOptions(bits=3, epochs=3), bench_of(quantized, tmp_path / "step"))
    module = to_module(made.program)
    for name, layer in weighted_layers(module).items():
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        quantizer = layer.weight_quantizer
        integers = quantizer.to_integers(weight)  # type: ignore[operator, union-attr]
        assert len(integers.unique()) <= 8, name
        torch.testing.assert_close(quantizer.to_float(integers), weight, rtol=1e-5, atol=1e-7)  # type: ignore[operator, union-attr]
    assert made.program.precision == "w8a8"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bits": 0}, r"0 bits \(bits\) are outside 1..8"),
        ({"bits": 9}, "outside 1..8"),
        ({"bias_bits": 12}, r"12 bits \(bias_bits\)"),
        ({"layer_bits": {"stem": 0}}, r"0 bits \(stem\)"),
        ({"init": "random"}, "init 'random' is unknown"),
        ({"epochs": -1}, "-1 epochs"),
        ({"layers": ("stem",), "skip": ("s*",)}, "no layer is left"),
    ],
)
def test_bad_options(cnn: nn.Module, options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        cluster(cnn, **options)  # type: ignore[arg-type]


def test_what_cannot_be_clustered_is_refused(cnn: nn.Module) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'classify'"):
        cluster(cnn, layer_bits={"clasify": 3})
    with pytest.raises(TrainingError, match="needs training"):
        cluster(cnn, epochs=1)
    with torch.no_grad():
        cnn.stem.weight[0, 0, 0, 0] = float("nan")  # type: ignore[index, operator]
    with pytest.raises(ConversionError, match="layer 'stem' holds NaN"):
        cluster(cnn)
