"""Choose the samples from which activation ranges are taken, and say when they are doubtful."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright.core.contracts import Calibration
from edgewright.core.errors import DataError
from edgewright.core.tensors import Array
from edgewright.data.datasets import Dataset, digest_of
from edgewright.data.lints import Lint
from edgewright.data.npz import write_npz
from edgewright.data.similarity import compare, compared_count, count_near_duplicates

DEFAULT_COUNT = 512
FEW_SAMPLES = 100
_COMPARED_SAMPLES = 2000
_DUPLICATE_SHARE = 0.1

Indices = npt.NDArray[np.int64]


def choose_calibration(
    calibration: Dataset | None,
    evaluation: Dataset | None,
    *,
    count: int = DEFAULT_COUNT,
    seed: int,
    workdir: Path,
) -> tuple[Calibration, list[Lint]]:
    """Write up to `count` real samples to `workdir`/calibration.npz and return them with their lints.

    The samples are drawn with `seed`, in proportion to the classes where labels are class numbers.
    They come from `calibration`, or else from `evaluation` itself. Random numbers are never used.
    A severe lint means that results quantized with these samples cannot be trusted.

    Raises:
        DataError: neither set is given, or their inputs differ.
        UsageError: `workdir` cannot be written.
    """
    source = calibration if calibration is not None else evaluation
    if source is None:
        raise DataError(
            "full-integer quantization needs calibration samples, but no data is given. "
            "Give training samples, or evaluation data to draw from."
        )
    if count < 1:
        raise DataError(
            f"{count} calibration samples are asked for; at least 1 is needed, {DEFAULT_COUNT} is usual."
        )
    chosen = draw(source, count, seed=seed)
    samples = {name: array[chosen] for name, array in source.inputs.items()}
    path = workdir / "calibration.npz"
    write_npz(path, samples)
    way = "all" if len(chosen) == source.count else f"seeded (seed {seed})"
    record = Calibration(
        path=path,
        count=len(chosen),
        sha256=digest_of(samples, None),
        description=f"{len(chosen)} samples, {way}, of {source.description}",
    )
    lints = _own_lints(samples, seed=seed)
    if evaluation is not None:
        lints += _overlap_lints(samples, evaluation)
        if calibration is not None:
            lints += _likeness_lints(samples, evaluation, seed=seed)
    return record, lints


def draw(dataset: Dataset, count: int, *, seed: int) -> Indices:
    """Return the indices, int64 [min(count, n)], of a seeded sample without repetition, in random order.

    With class numbers as labels each class gives its share (largest remainders), and at least one
    sample where `count` allows.
    """
    total = dataset.count
    generator = np.random.default_rng(seed)
    order: Indices = generator.permutation(total).astype(np.int64)
    if count >= total:
        return order
    labels = dataset.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "biu":
        return order[:count]
    classes, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) > count:
        return order[:count]
    shares = _shares(sizes.astype(np.int64), count)
    picked = [order[numbers[order] == k][: shares[k]] for k in range(len(classes))]
    drawn: Indices = generator.permutation(np.concatenate(picked))
    return drawn


def _shares(sizes: Indices, count: int) -> Indices:
    """Return how many of `count` each class gives: one each, the rest by largest remainder."""
    exact = (sizes - 1) * (count - len(sizes)) / max(int(sizes.sum()) - len(sizes), 1)
    shares: Indices = np.floor(exact).astype(np.int64) + 1
    order = np.argsort(-(exact - np.floor(exact)), kind="stable")
    missing = count - int(shares.sum())
    shares[order[:missing]] += 1
    return np.minimum(shares, sizes)


def sample_digests(inputs: Mapping[str, Array]) -> list[bytes]:
    """Return one digest per sample over the dtypes, shapes and bytes of all inputs, by name."""
    names = sorted(inputs)
    digests = []
    for index in range(len(inputs[names[0]])):
        digest = hashlib.sha256()
        for name in names:
            sample = np.asarray(inputs[name][index])
            digest.update(f"{name}\0{sample.dtype.str}{sample.shape}".encode())
            digest.update(sample.tobytes())
        digests.append(digest.digest())
    return digests


def _own_lints(samples: Mapping[str, Array], *, seed: int) -> list[Lint]:
    """Return what is doubtful in the samples by themselves."""
    count = len(next(iter(samples.values())))
    lints = []
    if count < FEW_SAMPLES:
        message = f"only {count} calibration samples; at least {FEW_SAMPLES} give stable activation ranges"
        lints.append(Lint(code="calibration-few", message=message))
    for name, array in samples.items():
        if count > 1 and bool((array == array[0]).all()):
            message = f"calibration input {name!r} is the same in all {count} samples"
            lints.append(Lint(code="calibration-constant", message=message, is_severe=len(samples) == 1))
    numeric = [array for array in samples.values() if array.dtype.kind in "iuf"]
    near = count_near_duplicates(numeric, seed=seed) if numeric else 0
    if near > _DUPLICATE_SHARE * count:
        message = f"{near} of {count} calibration samples nearly repeat another one"
        lints.append(Lint(code="calibration-duplicates", message=message))
    return lints


def _overlap_lints(samples: Mapping[str, Array], evaluation: Dataset) -> list[Lint]:
    _require_same_inputs(samples, evaluation)
    known = set(sample_digests(evaluation.inputs))
    digests = sample_digests(samples)
    shared = sum(digest in known for digest in digests)
    if not shared:
        return []
    message = (
        f"calibration overlaps the evaluation set ({shared} of {len(digests)} samples): the "
        "measured drop may be too small. Calibrate with training data"
    )
    return [Lint(code="calibration-overlap", message=message)]


def _require_same_inputs(samples: Mapping[str, Array], evaluation: Dataset) -> None:
    for name in sorted(set(samples) | set(evaluation.inputs)):
        a, b = samples.get(name), evaluation.inputs.get(name)
        if a is None or b is None or a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
            raise DataError(
                f"calibration and evaluation data differ in input {name!r}: {_show(a)} and {_show(b)}. "
                "Prepare both for the same model."
            )


def _show(array: Array | None) -> str:
    return "none" if array is None else f"{array.dtype}{list(array.shape)}"


def _likeness_lints(samples: Mapping[str, Array], evaluation: Dataset, *, seed: int) -> list[Lint]:
    chosen = draw(evaluation, _COMPARED_SAMPLES, seed=seed)
    lints = []
    for name, array in samples.items():
        few = chosen[: compared_count(array)]
        lints += compare(name, array, evaluation.inputs[name][few])
    return lints
