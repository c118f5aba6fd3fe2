"""Sensitivity: each layer alone, none of the others, in figures that the whole model confirms."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.compress.quantized_pairs import Pair, make_pair

from edgewright.compress.int8_quantizer import LayerScheme
from edgewright.compress.sensitivity import (
    class_scores,
    compare,
    run_batches,
    sensitivity,
    sensitivity_rows,
)
from edgewright.core.errors import ConversionError, DataError

pytestmark = pytest.mark.toolchain("torch", "torchao")
WEIGHTED = {"stem": 216, "depthwise": 72, "pointwise": 64, "classify": 40}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("sensitivity"))


def test_every_layer_is_measured_alone(pair: Pair) -> None:
    found = sensitivity(pair.reference, pair.quantized, pair.batches, has_4_bits=True)
    assert {entry.layer: entry.weights for entry in found if entry.weights} == WEIGHTED
    assert [entry.layer for entry in found if not entry.weights] == ["add", "mean"]
    whole = compare(run_batches(pair.reference, pair.batches), run_batches(pair.quantized, pair.batches))
    for entry in found:
        assert whole.sqnr_db - 1 < entry.alone.sqnr_db < 100
        assert entry.alone.samples == 96
        assert (entry.with_4_bits is None) == (entry.weights == 0)
        if entry.with_4_bits is not None:
            assert entry.with_4_bits.sqnr_db < entry.alone.sqnr_db


def test_one_layer_quantized_in_earnest_gives_its_figure(pair: Pair, tmp_path: Path) -> None:
    """The table's figure of `classify` is that of a program in which everything else is float."""
    others = ("stem", "depthwise", "pointwise", "add", "mean")
    only = make_pair(tmp_path, layers=dict.fromkeys(others, LayerScheme.FLOAT))
    (entry,) = [
        entry
        for entry in sensitivity(pair.reference, pair.quantized, pair.batches)
        if entry.layer == "classify"
    ]
    real = compare(run_batches(only.reference, only.batches), run_batches(only.quantized, only.batches))
    assert entry.alone.sqnr_db == pytest.approx(real.sqnr_db, abs=0.5)


def test_modules_are_left_as_they_were(pair: Pair) -> None:
    import torch

    before = run_batches(pair.quantized, pair.batches)
    sensitivity(pair.reference, pair.quantized, pair.batches)
    assert torch.equal(run_batches(pair.quantized, pair.batches), before)


def test_table_begins_with_the_most_sensitive_layer(pair: Pair) -> None:
    rows = sensitivity_rows(sensitivity(pair.reference, pair.quantized, pair.batches, has_4_bits=True))
    figures = [float(row["SQNR dB"]) for row in rows]
    assert figures == sorted(figures)
    assert set(rows[0]) >= {"layer", "weights", "KL nats", "top-1 agreement %"}
    assert any("SQNR dB with w4" in row for row in rows)


def test_scores_are_what_their_names_say() -> None:
    import torch

    want = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [0.0, 1.0]])
    got = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [1.0, 0.0]])
    scores = compare(want, got, torch.tensor([0, 1, 1, 1]))
    assert scores.agreement == 0.75
    assert (scores.float_accuracy, scores.accuracy) == (0.75, 0.5)
    assert scores.drop_points == 25.0
    assert compare(want, got).drop_points == 25.0
    assert scores.sqnr_db == pytest.approx(10 * math.log10(16 / 2))
    share = math.e / (1 + math.e)
    assert scores.kl == pytest.approx((share * 1 - (1 - share) * 1) / 4)
    assert compare(want, want).sqnr_db == 200
    assert compare(want, torch.full_like(want, torch.nan)).agreement == 0


def test_models_that_end_in_a_softmax_have_their_own_probabilities_compared() -> None:
    import torch

    want = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    got = torch.tensor([[0.8, 0.2], [0.5, 0.5]], dtype=torch.float64)
    assert compare(want, got).kl == pytest.approx((0.9 * math.log(0.9 / 0.8) + 0.1 * math.log(0.1 / 0.2)) / 2)


def test_refuses_models_without_class_scores_and_labels_that_do_not_fit() -> None:
    import torch

    with pytest.raises(ConversionError, match="class scores"):
        class_scores(torch.ones(4, 1))
    with pytest.raises(DataError, match="labels"):
        compare(torch.ones(4, 3), torch.ones(4, 3), torch.ones(3, dtype=torch.int64))
