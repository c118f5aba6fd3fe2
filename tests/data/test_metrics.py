"""Metrics score sample by sample, deterministically, and refuse what they cannot score."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, top_k_accuracy_score

from edgewright.core.errors import ConversionError, DataError, UnknownNameError
from edgewright.core.tensors import Array
from edgewright.data.metrics import get_metric, names


def test_the_registry() -> None:
    assert names() == ("cosine", "mse", "roc_auc", "top1", "top5")
    for name in names():
        metric = get_metric(name)
        assert metric.name == name and metric.higher_is_better == (name != "mse")
        assert metric.is_binary == metric.name.startswith("top")
        assert metric.unit == ("value" if name in ("mse", "cosine") else "fraction")
        assert metric.needs_labels == (name not in ("mse", "cosine"))
    with pytest.raises(UnknownNameError, match="Did you mean 'top1'"):
        get_metric("top_1")


@pytest.mark.parametrize(("name", "k"), [("top1", 1), ("top5", 5)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_top_k_is_that_of_scikit_learn(rng: np.random.Generator, name: str, k: int, dtype: str) -> None:
    scores = rng.permutation(2000).reshape(200, 10).astype(dtype)
    labels = rng.integers(0, 10, 200)
    metric = get_metric(name)
    found = metric.score({"y": scores}, labels, None)
    assert found.dtype == np.float64 and set(found.tolist()) <= {0.0, 1.0}
    expected = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(10))
    assert metric.value(found, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integer_outputs_with_many_ties_follow_argmax(rng: np.random.Generator, dtype: str) -> None:
    scores = rng.integers(100, 104, (500, 10)).astype(dtype)
    labels = rng.integers(0, 10, 500)
    found = get_metric("top1").score({"y": scores}, labels, None)
    np.testing.assert_array_equal(found, (scores.argmax(axis=1) == labels).astype(float))
    stable = np.argsort(-scores.astype(int), axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(
        get_metric("top5").score({"y": scores}, labels, None),
        (stable == labels[:, None]).any(axis=1).astype(float),
    )


def test_extra_axes_of_one_and_infinite_scores_are_class_scores() -> None:
    scores = np.array([[0.1, 0.9], [-np.inf, 0.0]], np.float32)
    for shaped in (scores, scores.reshape(2, 1, 2), scores.reshape(2, 1, 1, 2)):
        assert get_metric("top1").score({"y": shaped}, np.array([1, 0]), None).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 8, 8, 3), (4, 10, 1, 1)])
def test_top_k_refuses_what_are_no_class_scores(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"takes class scores \[n, classes\]"):
        get_metric("top1").score({"y": np.zeros(shape)}, np.zeros(4, int), None)


def test_top_k_refuses_wrong_labels_and_nan() -> None:
    metric, scores = get_metric("top1"), np.eye(3)
    for labels, message in (
        (None, "needs labels"),
        (np.array([0, 1]), "3 outputs"),
        (np.array([0, 1, 3]), "outside 0..2"),
        (np.array([0.0, 1.0, 2.0]), "dtype float64"),
    ):
        with pytest.raises(DataError, match=message):
            metric.score({"y": scores}, labels, None)
    scores[1, 2] = np.nan
    with pytest.raises(ConversionError, match="NaN for sample 1"):
        metric.score({"y": scores}, np.arange(3), None)


def test_an_output_is_chosen_by_name() -> None:
    outputs = {"logits": np.eye(3), "state": np.zeros((3, 7))}
    with pytest.raises(DataError, match="top1@logits"):
        get_metric("top1").score(outputs, np.arange(3), None)
    assert get_metric("top1@logits").score(outputs, np.arange(3), None).tolist() == [1.0] * 3
    with pytest.raises(UnknownNameError, match="logits"):
        get_metric("top1@logit").score(outputs, np.arange(3), None)


def test_mse_and_cosine_by_hand() -> None:
    got = {"y": np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]], np.float32)}
    want = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]], np.float32)
    for labels, reference in ((want, None), (None, {"y": want}), (np.arange(3), {"y": want})):
        np.testing.assert_allclose(get_metric("mse").score(got, labels, reference), [2.0, 0.0, 0.0])
        np.testing.assert_allclose(get_metric("cosine").score(got, labels, reference), [1 / 5**0.5, 1.0, 1.0])
    one_zero = get_metric("cosine").score({"y": np.array([[0.0, 0.0]])}, None, {"y": np.array([[1.0, 0.0]])})
    assert one_zero.tolist() == [0.0]


def test_fidelity_over_several_outputs_and_its_refusals() -> None:
    outputs = {"a": np.array([[1.0], [2.0]]), "b": np.array([[0.0, 0.0], [0.0, 3.0]])}
    zero = {name: np.zeros_like(array) for name, array in outputs.items()}
    np.testing.assert_allclose(get_metric("mse").score(outputs, None, zero), [1 / 3, 13 / 3])
    np.testing.assert_allclose(get_metric("mse@b").score(outputs, None, zero), [0.0, 4.5])
    for reference, message in (
        (None, "source's outputs"),
        ({"a": zero["a"]}, r"\['b'\] are not in the source"),
        ({"a": zero["a"], "b": zero["b"].astype(np.int8)}, "Dequantize"),
    ):
        with pytest.raises(DataError, match=message):
            get_metric("mse").score(outputs, None, reference)
    outputs["b"][1, 0] = np.inf
    with pytest.raises(ConversionError, match="'b' has NaN or infinity for sample 1"):
        get_metric("mse").score(outputs, None, zero)


@pytest.mark.parametrize("levels", [5, 1000])
def test_roc_auc_is_that_of_scikit_learn_with_ties(rng: np.random.Generator, levels: int) -> None:
    labels = rng.integers(0, 2, 300)
    scores = (rng.integers(0, levels, 300) + labels * levels // 4).astype(np.float32)
    metric = get_metric("roc_auc")
    assert metric.aggregate == "roc_auc"
    for output in (scores, scores[:, None], np.stack([-scores, scores], axis=1)):
        found = metric.score({"y": output}, labels, None)
        assert found.shape == (300,)
        assert metric.value(found, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_roc_auc_refuses_other_labels_and_outputs() -> None:
    metric = get_metric("roc_auc")
    for output, labels, message in (
        (np.zeros((3, 3)), np.array([0, 1, 0]), "two classes"),
        (np.zeros(3), np.array([0, 1, 2]), "outside 0..1"),
        (np.zeros(3), np.array([1, 1, 1]), "both classes"),
    ):
        with pytest.raises(DataError, match=message):
            metric.score({"y": output}, labels, None)


@pytest.fixture
def user_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "user_metrics_of_the_tests"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "def distance(outputs, labels): return abs(outputs['y'][:, 0] - labels)\n"
        "distance.higher_is_better = False\n"
        "distance.needs_labels = True\n"
        "def hit(outputs, labels): return outputs['y'][:, 0] > 1\n"
        "hit.is_binary = True\n"
        "hit.unit = 'fraction'\n"
        "def scalar(outputs, labels): return 0.5\n"
        "def short(outputs, labels): return np.zeros(2)\n"
        "def nan(outputs, labels): return np.array([0, np.nan, 0])\n"
        "def half(outputs, labels): return np.full(3, 0.5)\n"
        "half.is_binary = True\n"
        "def fails(outputs, labels): return outputs['z']\n"
        "def odd(outputs, labels): return np.zeros(3)\n"
        "odd.unit = 'metres'\n"
        "def vague(outputs, labels): return np.zeros(3)\n"
        "vague.is_binary = 'no'\n"
    )
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


_OUTPUTS: dict[str, Array] = {"y": np.array([[1.0], [2.0], [4.0]])}


def test_a_user_function_is_a_metric(user_metrics: str) -> None:
    metric = get_metric(f"{user_metrics}:distance")
    assert not metric.higher_is_better and metric.needs_labels and not metric.is_binary
    assert metric.score(_OUTPUTS, np.array([1.0, 1.0, 1.0]), None).tolist() == [0.0, 1.0, 3.0]
    with pytest.raises(DataError, match="needs labels"):
        metric.score(_OUTPUTS, None, None)
    hit = get_metric(f"{user_metrics}:hit")
    assert (
        hit.is_binary
        and hit.unit == "fraction"
        and hit.score(_OUTPUTS, None, None).tolist() == [0.0, 1.0, 1.0]
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("scalar", "returned float"),
        ("short", r"returned float64\[2\]; one number per sample, \[3\]"),
        ("nan", "not finite for sample 1"),
        ("half", "neither 0 nor 1"),
        ("fails", "KeyError: 'z'"),
        ("odd", "'fraction' or 'value'"),
        ("vague", "True or False"),
        ("absent", "no function"),
    ],
)
def test_a_user_function_that_is_none(user_metrics: str, function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_metric(f"{user_metrics}:{function}").score(_OUTPUTS, None, None)
