"""Parity figures by hand-worked numbers, and the tolerances on a small network with seeded faults."""

import numpy as np
import pytest

from edgewright.core.errors import DataError, UnknownNameError
from edgewright.measure.parity import SNR_CAP_DB, compare_outputs, judge, wilson_interval

Layers = list[np.ndarray]


def test_figures_of_known_numbers() -> None:
    parity = compare_outputs(
        {"y": np.array([[3.0, 4.0], [0.0, 5.0]])}, {"y": np.array([[3.0, 4.0], [5.0, 0.0]])}
    )
    assert (parity.max_abs, parity.max_rel, parity.cosine) == (5.0, 1.0, 0.5)
    assert parity.snr_db == pytest.approx(0.0)  # 50 / 50
    assert parity.varied_snr_db == parity.snr_db  # 2 samples are too few to take a mean from
    assert parity.agreement is None  # the reference names class 1 for both
    assert (parity.n_samples, parity.finite, parity.mismatch) == (2, True, "")


def test_varied_snr_takes_the_mean_over_samples_away() -> None:
    reference = np.array([[101.0], [99.0], [101.0], [99.0]])
    parity = compare_outputs({"y": reference}, {"y": np.full((4, 1), 100.0)})
    assert parity.snr_db == pytest.approx(40.0, abs=0.01)
    assert parity.varied_snr_db == pytest.approx(0.0)
    assert not judge(parity, "w8a8")[0]


def test_identical_outputs_are_capped_and_pass_everywhere() -> None:
    y = {"y": np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)}
    parity = compare_outputs(y, y)
    assert (parity.snr_db, parity.varied_snr_db, parity.agreement) == (SNR_CAP_DB, SNR_CAP_DB, 1.0)
    assert all(judge(parity, precision)[0] for precision in ("fp32", "fp16", "w8", "w8a8"))


def test_zero_vectors() -> None:
    zero, one = np.zeros((4, 3)), np.ones((4, 3))
    assert compare_outputs({"y": zero}, {"y": zero}).cosine == 1.0
    assert compare_outputs({"y": zero}, {"y": zero}).snr_db == SNR_CAP_DB
    assert compare_outputs({"y": one}, {"y": zero}).cosine == 0.0
    assert compare_outputs({"y": zero}, {"y": one}).snr_db == -SNR_CAP_DB


def test_new_infinities_fail_and_old_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(8, 4))
    reference[0, 0], reference[1, 1] = -np.inf, np.nan
    assert compare_outputs({"y": reference}, {"y": reference.copy()}).finite
    for value in (np.inf, np.nan):
        overflown = reference.copy()
        overflown[2, 2] = value
        parity = compare_outputs({"y": reference}, {"y": overflown})
        assert not parity.finite
        assert "NaN or infinite" in judge(parity, "fp16")[1]
    other_sign = reference.copy()
    other_sign[0, 0] = np.inf
    assert not compare_outputs({"y": reference}, {"y": other_sign}).finite


def test_the_worst_output_counts() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 5)), rng.normal(size=(20, 2, 2))
    parity = compare_outputs({"a": a, "b": b}, {"a": a, "b": -b})
    assert parity.cosine == pytest.approx(-1.0)
    assert parity.agreement == 1.0
    assert not judge(parity, "w8a8")[0]


def _with_noise(values: np.ndarray, decibel: float, rng: np.random.Generator) -> np.ndarray:
    """Return values plus noise whose energy is `decibel` below what varies between the rows of `values`."""
    noise = rng.normal(size=values.shape)
    wanted = np.linalg.norm(values - values.mean(axis=0)) / 10 ** (decibel / 20)
    return values + noise * wanted / np.linalg.norm(noise)


def test_outputs_that_hardly_vary_need_less_and_do_not_hide_the_others() -> None:
    """A detector's output: a constant background, and few values that follow the input with 9 dB."""
    rng = np.random.default_rng(0)
    signal = np.hstack([rng.normal(size=(50, 10)), np.zeros((50, 390))])
    background, noisy = 1.0 + signal, _with_noise(signal, 9.0, rng) + 1.0
    sparse = compare_outputs({"y": background}, {"y": noisy})
    assert sparse.varied_share < 0.1
    assert sparse.varied_snr_db == pytest.approx(9.0)
    assert judge(sparse, "w8a8")[0]
    dense = rng.normal(size=(50, 8))
    wrong = _with_noise(dense, 10.0, rng)
    both = compare_outputs({"y": background, "z": dense}, {"y": noisy, "z": wrong})
    assert not judge(both, "w8a8")[0]
    assert both.varied_snr_db == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ({"z": np.ones((4, 3))}, r"\['z'\], expected \['y'\]"),
        ({"y": np.ones((4, 2))}, r"shape \[4, 2\], expected \[4, 3\]"),
        ({"y": np.ones((3, 4))}, "shape"),
    ],
)
def test_a_mismatch_is_a_finding(candidate: dict[str, np.ndarray], words: str) -> None:
    parity = compare_outputs({"y": np.ones((4, 3))}, candidate)
    passed, why = judge(parity, "w8a8")
    assert not passed
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(why)


def test_nothing_to_compare_and_unknown_precision_are_refused() -> None:
    for nothing in ({}, {"y": np.ones((0, 3))}, {"y": np.array(1.0)}):
        with pytest.raises(DataError, match="nothing to compare"):
            compare_outputs(nothing, nothing)
    with pytest.raises(UnknownNameError, match="w8a8"):
        judge(compare_outputs({"y": np.ones((2, 2))}, {"y": np.ones((2, 2))}), "w8a9")


def test_agreement_of_few_samples_needs_a_larger_gap() -> None:
    """24 of 32 may still be 0.80 or better; 7500 of 10,000 cannot be."""
    assert wilson_interval(24 / 32, 32)[1] > 0.80
    assert wilson_interval(0.75, 10_000)[1] < 0.80
    low, high = wilson_interval(
        0.0, 10
    )  # Newcombe (1998), Statistics in Medicine 17:857: 0/10 gives 0 to 0.2775
    assert (low, high) == pytest.approx((0.0, 0.2775), abs=5e-5)


def _network(rng: np.random.Generator) -> Layers:
    return [rng.normal(0.0, np.sqrt(2.0 / a), (a, b)) for a, b in ((48, 64), (64, 64), (64, 10))]


def _forward(x: np.ndarray, layers: Layers, *, bits: int | None = None) -> np.ndarray:
    for i, w in enumerate(layers):
        x = _rounded(x, bits) @ w
        x = np.maximum(x, 0.0) if i < len(layers) - 1 else x
    return x


def _rounded(x: np.ndarray, bits: int | None) -> np.ndarray:
    if bits is None:
        return x
    step = np.abs(x).max() / 2 ** (bits - 1)
    return np.round(x / step) * step


def _weights_rounded(layers: Layers) -> Layers:
    steps = [np.abs(w).max(axis=0) / 127 for w in layers]
    return [np.round(w / s) * s for w, s in zip(layers, steps, strict=True)]


def _faults(rng: np.random.Generator, x: np.ndarray, layers: Layers) -> dict[str, np.ndarray]:
    outputs = {
        "swapped channels": _forward(x.reshape(-1, 16, 3)[..., ::-1].reshape(x.shape), layers),
        "wrong mean": _forward(x + x.std(), layers),
        "wrong scale": _forward(x / 255.0, layers),
        "wrong layout": _forward(x.reshape(-1, 16, 3).transpose(0, 2, 1).reshape(x.shape), layers),
        "calibration far too narrow": _forward(np.clip(x, -0.2, 0.2), layers),
    }
    for i in range(len(layers)):
        zeroed, permuted = list(layers), list(layers)
        zeroed[i] = np.zeros_like(layers[i])
        permuted[i] = rng.permutation(layers[i].ravel()).reshape(layers[i].shape)
        outputs[f"zeroed layer {i}"] = _forward(x, zeroed)
        outputs[f"permuted layer {i}"] = _forward(x, permuted)
    return outputs


@pytest.mark.parametrize("n", [32, 1000])
def test_tolerances_catch_faults_and_pass_healthy_conversions(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(10):
        layers, x = _network(rng), rng.normal(0.3, 1.0, (n, 48))
        reference = {"y": _forward(x, layers)}
        healthy = {
            "fp32": _forward(x.astype(np.float32), [w.astype(np.float32) for w in layers]),
            "fp16": _forward(x.astype(np.float16), [w.astype(np.float16) for w in layers]).astype(np.float32),
            "w8": _forward(x, _weights_rounded(layers)),
            "w8a8": _forward(x, _weights_rounded(layers), bits=8),
        }
        for precision, output in healthy.items():
            assert judge(compare_outputs(reference, {"y": output}), precision)[0], precision
        for name, output in _faults(rng, x, layers).items():
            assert not judge(compare_outputs(reference, {"y": output}), "w8a8")[0], name
