"""Adaptive rounding: better integers of the same scale, also on other data, that survive the export."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from tests.compress.quantized_pairs import Pair, images, make_pair

from edgewright.backends.vendor import load_exported
from edgewright.compress.adaround import round_weights
from edgewright.compress.int8_quantizer import LayerScheme
from edgewright.compress.module import layered
from edgewright.compress.sensitivity import compare
from edgewright.core.errors import UsageError
from edgewright.sources.torch_export import export_module

pytestmark = pytest.mark.toolchain("torch", "torchao")
LAYERS = ("stem", "depthwise", "pointwise", "classify")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    layers = dict.fromkeys(LAYERS, LayerScheme.W4A8)
    return make_pair(tmp_path_factory.mktemp("round"), layers=layers)


@pytest.fixture(scope="module")
def rounded(pair: Pair) -> Pair:
    made = copy.deepcopy(pair.quantized)
    found = round_weights(pair.reference, made, pair.batches, iterations=150)
    assert all(entry.error_after <= entry.error_before for entry in found.values())
    assert any(entry.changed > 0.02 for entry in found.values())
    return Pair(reference=pair.reference, quantized=made, batches=pair.batches)


def test_comes_nearer_to_the_float_outputs_on_other_data(pair: Pair, rounded: Pair) -> None:
    import torch

    given = images(200, seed=77)
    with torch.no_grad():
        want = pair.reference(given)
        before = compare(want, pair.quantized(given)).sqnr_db
        after = compare(want, rounded.quantized(given)).sqnr_db
    assert after > before + 3


def test_weights_lie_on_integers_next_to_the_old_ones(pair: Pair, rounded: Pair) -> None:
    for name in LAYERS:
        old, new = pair.quantized.get_submodule(name), rounded.quantized.get_submodule(name)
        quantizer = new.weight_quantizer
        scale = quantizer.scale.reshape(-1, *[1] * (old.weight.ndim - 1))  # type: ignore[union-attr, operator]
        steps = new.weight.detach() / scale  # type: ignore[union-attr, operator]
        assert float((steps - steps.round()).abs().max()) < 1e-3
        assert float((steps - old.weight.detach() / scale).abs().max()) < 1 + 1e-3  # type: ignore[union-attr, operator]
        assert float(steps.abs().max()) < 7.001


def test_integers_survive_the_export(rounded: Pair, tmp_path: Path) -> None:
    import torch

    program = export_module(rounded.quantized, rounded.batches[0], workdir=tmp_path, origin="rounded")
    again = layered(load_exported(program))
    for name in LAYERS:
        was, now = rounded.quantized.get_submodule(name), again.get_submodule(name)
        assert torch.equal(
            was.weight_quantizer.to_integers(was.weight),  # type: ignore[union-attr, operator]
            now.weight_quantizer.to_integers(now.weight),  # type: ignore[union-attr, operator]
        )
    with torch.no_grad():
        given = images(8, seed=5)
        assert torch.allclose(again(given), rounded.quantized(given), atol=1e-6)


def test_skipped_layers_stay(pair: Pair) -> None:
    import torch

    made = copy.deepcopy(pair.quantized)
    found = round_weights(pair.reference, made, pair.batches, iterations=20, skip=("stem", "classify"))
    assert set(found) == {"depthwise", "pointwise"}
    for name in ("stem", "classify"):
        assert torch.equal(made.get_submodule(name).weight, pair.quantized.get_submodule(name).weight)  # type: ignore[arg-type]


def test_pruned_weights_stay_zero(pair: Pair) -> None:
    import torch

    made = copy.deepcopy(pair.quantized)
    zeros = {}
    for name in LAYERS:
        weight = made.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        zeros[name] = torch.arange(weight.numel()).reshape(weight.shape) % 3 == 0
        weight.data[zeros[name]] = 0
    round_weights(pair.reference, made, pair.batches, iterations=50)
    for name, is_zero in zeros.items():
        weight = made.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        assert not weight[is_zero].any()
        assert weight[~is_zero].count_nonzero() > 0.5 * weight[~is_zero].numel()


def test_same_seed_gives_the_same_integers(pair: Pair) -> None:
    import torch

    made = [copy.deepcopy(pair.quantized) for _ in range(2)]
    for module in made:
        round_weights(pair.reference, module, pair.batches, iterations=20, seed=3)
    assert all(
        torch.equal(one, other)
        for one, other in zip(made[0].state_dict().values(), made[1].state_dict().values(), strict=True)
    )


def test_counts_out_of_range_are_refused(pair: Pair) -> None:
    for iterations, batch in ((0, 32), (1_000_000, 32), (10, 0)):
        with pytest.raises(UsageError, match="expected"):
            round_weights(pair.reference, pair.quantized, pair.batches, iterations=iterations, batch=batch)
