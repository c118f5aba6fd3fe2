"""How closely a candidate's outputs follow the source's on the same inputs, and whether closely enough."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log10, sqrt

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import DataError, UnknownNameError
from edgewright.core.tensors import Array

Values = npt.NDArray[np.float64]

SNR_CAP_DB = 200.0
MIN_SAMPLES_TO_CENTRE = 4
SPARSE_SHARE = 0.1
SPARSE_ALLOWANCE_DB = 6.5
_MIN_VARIED_SHARE = 1e-6
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of all outputs with the reference; with several outputs, each figure is of the worst one.

    max_abs: largest absolute difference, in the output's unit.
    max_rel: max_abs over the largest magnitude in the reference's output.
    cosine: mean over samples of the cosine of a sample's output with the reference's; two zero vectors
        agree (1), a zero and another do not (0). One value per sample makes one vector over all samples.
    snr_db: 10 log10(sum reference**2 / sum difference**2), within -200..200 dB; 200 is "identical".
    varied_snr_db: the same after taking from the reference its mean over samples: how well the
        outputs follow the *input*. A model that answers the same to everything has about 0 dB here, whatever
        its snr_db. Equals snr_db for fewer than 4 samples, or where the reference does not vary.
    varied_share: part of the reference's energy that varies between samples, in that same output.
    agreement: share of samples with the same largest class in the first output of shape [n, classes >= 2];
        None where there is none, or where the reference names one class for every sample.
    finite: no NaN or infinity that the reference does not have in the same place.
    mismatch: what differs in names or shapes; empty if nothing does, else the figures say "nothing agrees".
    """

    max_abs: float
    max_rel: float
    cosine: float
    snr_db: float
    varied_snr_db: float
    varied_share: float
    agreement: float | None
    n_samples: int
    finite: bool
    mismatch: str


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What one precision may differ by; agreement is judged by its 95 % Wilson interval."""

    max_rel: float | None
    cosine: float
    varied_snr_db: float
    agreement: float


# Measured on MLPerf Tiny resnet8, vww and kws, a hand-pose MLP and a sine regressor against themselves in
# lower precision, and with 15 faults in each (channels, scale, mean, layout, zeroed or permuted weights,
# calibration). Lowest varied SNR of the healthy: fp16 50, w8 24, w8a8 15 dB. Of the faults all but an input
# scaled by 1.25 stay under 12.5 dB. Lowest healthy cosine: 0.9999, 0.998, 0.984; lowest healthy agreement:
# 0.995, 0.92, 0.87. A face detector's outputs are nearly all background: its healthy w8a8 varied SNR is 7 dB
# and its broken layers' at most 1.3 dB, hence the allowance for outputs that vary little.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(max_rel=1e-3, cosine=0.9999, varied_snr_db=60.0, agreement=0.995),
    "fp16": Tolerance(max_rel=None, cosine=0.999, varied_snr_db=35.0, agreement=0.98),
    "w8": Tolerance(max_rel=None, cosine=0.98, varied_snr_db=18.0, agreement=0.85),
    "w8a8": Tolerance(max_rel=None, cosine=0.95, varied_snr_db=13.0, agreement=0.80),
    # No looser than w8a8: without training many a network does not keep this, and the user should see it.
    "w4a8": Tolerance(max_rel=None, cosine=0.95, varied_snr_db=13.0, agreement=0.80),
    "w4": Tolerance(max_rel=None, cosine=0.95, varied_snr_db=13.0, agreement=0.80),
    "pruned": Tolerance(max_rel=None, cosine=0.95, varied_snr_db=13.0, agreement=0.80),
}


def compare_outputs(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> Parity:
    """Return how the candidate's outputs differ from the reference's, by output name.

    Args:
        reference, candidate: name -> [n, ...], real or integer, the same n samples in the same order;
            quantized outputs are dequantized. Names and shapes that differ are a finding, told in `mismatch`.
    Raises:
        DataError: the reference is empty: there is nothing to compare with.
    """
    if not reference or any(np.ndim(value) == 0 or np.size(value) == 0 for value in reference.values()):
        raise DataError(
            f"the reference has nothing to compare with: outputs {_shapes(reference)}. "
            "Expected at least one output of shape [n, ...] with n >= 1."
        )
    n_samples = int(next(iter(reference.values())).shape[0])
    mismatch = _mismatch(reference, candidate)
    if mismatch:
        return Parity(
            max_abs=0.0,
            max_rel=1.0,
            cosine=0.0,
            snr_db=-SNR_CAP_DB,
            varied_snr_db=-SNR_CAP_DB,
            varied_share=1.0,
            agreement=None,
            n_samples=n_samples,
            finite=True,
            mismatch=mismatch,
        )
    finite = True
    rows: list[_Figures] = []
    for expected, got in _pairs(reference, candidate):
        usable = np.isfinite(expected) & np.isfinite(got)
        finite &= bool(np.all(usable | (expected == got) | (np.isnan(expected) & np.isnan(got))))
        rows.append(_figures(np.where(usable, expected, 0.0), np.where(usable, got, 0.0)))
    worst = min(rows, key=lambda row: row.varied_snr_db + _allowance(row.varied_share))
    return Parity(
        max_abs=max(row.max_abs for row in rows),
        max_rel=max(row.max_rel for row in rows),
        cosine=min(row.cosine for row in rows),
        snr_db=min(row.snr_db for row in rows),
        varied_snr_db=worst.varied_snr_db,
        varied_share=worst.varied_share,
        agreement=_agreement(reference, candidate),
        n_samples=n_samples,
        finite=finite,
        mismatch="",
    )


def judge(parity: Parity, precision: str, *, is_synthetic: bool = False) -> tuple[bool, str]:
    """Return whether a candidate of this precision agrees with its source, and each reason why not.

    Agreement over few samples is uncertain, so only an agreement whose 95 % Wilson interval lies wholly below
    the tolerance counts against a candidate; with 32 samples that is a larger gap than with 10,000.

    Args:
        precision: a key of TOLERANCES.
        is_synthetic: the inputs are random numbers. Outputs that hardly vary over them (a model made for pixels
            of 0..255, say) tell nothing by what varies; they are then judged by cosine and difference alone.
    Raises:
        UnknownNameError: there is no tolerance for `precision`.
    """
    if precision not in TOLERANCES:
        raise UnknownNameError.of("precision", precision, TOLERANCES)
    if parity.mismatch:
        return False, parity.mismatch
    tolerance = TOLERANCES[precision]
    faults = []
    if not parity.finite:
        faults.append("NaN or infinite values that the source does not have")
    if tolerance.max_rel is not None and parity.max_rel > tolerance.max_rel:
        faults.append(f"max relative difference {parity.max_rel:.2g} > {tolerance.max_rel:.2g}")
    if parity.cosine < tolerance.cosine:
        faults.append(f"cosine {parity.cosine:.4f} < {tolerance.cosine}")
    needed_db = tolerance.varied_snr_db - _allowance(parity.varied_share)
    if parity.varied_snr_db < needed_db and not (is_synthetic and parity.varied_share < SPARSE_SHARE):
        faults.append(f"SNR of what varies {parity.varied_snr_db:.1f} dB < {needed_db:g} dB")
    if parity.agreement is not None and not (is_synthetic and parity.varied_share < SPARSE_SHARE):
        _, upper = wilson_interval(parity.agreement, parity.n_samples)
        if upper < tolerance.agreement:
            faults.append(
                f"top-1 agreement {parity.agreement:.3f} of {parity.n_samples} samples "
                f"(at most {upper:.3f}) < {tolerance.agreement}"
            )
    if faults:
        return False, f"does not follow the source at {precision}: " + "; ".join(faults)
    return True, f"follows the source within the tolerance of {precision}"


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion `share` of n trials: Wilson (1927), JASA 22:209."""
    z = 1.959963984540054
    scale = 1.0 + z**2 / n
    centre = (share + z**2 / (2 * n)) / scale
    half = z * sqrt(share * (1.0 - share) / n + z**2 / (4 * n**2)) / scale
    return max(centre - half, 0.0), min(centre + half, 1.0)


@dataclass(frozen=True, kw_only=True)
class _Figures:
    max_abs: float
    max_rel: float
    cosine: float
    snr_db: float
    varied_snr_db: float
    varied_share: float


def _allowance(varied_share: float) -> float:
    """Return by how much less varied SNR will do, in dB, for an output of which under a tenth varies."""
    return SPARSE_ALLOWANCE_DB if varied_share < SPARSE_SHARE else 0.0


def _figures(expected: Values, got: Values) -> _Figures:
    """Return the figures of one output, finite [n, values]."""
    difference = got - expected
    max_abs = float(np.abs(difference).max())
    max_rel = max_abs / max(float(np.abs(expected).max()), _TINY)
    noise, energy = float(np.sum(difference**2)), float(np.sum(expected**2))
    varied = energy
    if expected.shape[0] >= MIN_SAMPLES_TO_CENTRE:
        centred = float(np.sum((expected - expected.mean(axis=0)) ** 2))
        varied = centred if centred > _MIN_VARIED_SHARE * energy else energy
    return _Figures(
        max_abs=max_abs,
        max_rel=max_rel,
        cosine=_cosine(expected, got),
        snr_db=_decibel(energy, noise),
        varied_snr_db=_decibel(varied, noise),
        varied_share=varied / energy if energy > 0.0 else 1.0,
    )


def _decibel(energy: float, noise: float) -> float:
    if noise == 0.0:
        return SNR_CAP_DB
    if energy == 0.0:
        return -SNR_CAP_DB
    return float(np.clip(10.0 * log10(energy / noise), -SNR_CAP_DB, SNR_CAP_DB))


def _cosine(expected: Values, got: Values) -> float:
    if expected.shape[1] == 1:
        expected, got = expected.reshape(1, -1), got.reshape(1, -1)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    both_zero = ~expected.any(axis=1) & ~got.any(axis=1)
    cosines = np.sum(expected * got, axis=1) / np.where(lengths > 0.0, lengths, 1.0)
    return float(np.clip(np.where(both_zero, 1.0, cosines).mean(), -1.0, 1.0))


def _agreement(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> float | None:
    for name, value in reference.items():
        if value.ndim == 2 and value.shape[1] >= 2:
            expected = np.asarray(value, dtype=np.float64).argmax(axis=1)
            got = np.asarray(candidate[name], dtype=np.float64).argmax(axis=1)
            return None if np.all(expected == expected[0]) else float(np.mean(expected == got))
    return None


def _pairs(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> Iterator[tuple[Values, Values]]:
    for name, value in reference.items():
        rows = (value.shape[0], -1)
        yield (
            np.asarray(value, dtype=np.float64).reshape(rows),
            np.asarray(candidate[name], dtype=np.float64).reshape(rows),
        )


def _mismatch(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> str:
    if set(reference) != set(candidate):
        return f"outputs are named {sorted(candidate)}, expected {sorted(reference)}"
    wrong = [
        f"output {name!r} has shape {list(candidate[name].shape)}, expected {list(value.shape)}"
        for name, value in reference.items()
        if candidate[name].shape != value.shape
    ]
    return "; ".join(wrong)


def _shapes(outputs: Mapping[str, Array]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in outputs.items()}
