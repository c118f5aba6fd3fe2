"""Where a candidate that does not follow its source begins to differ: the first diverging layer.

The candidate and a sound twin (fp32 of the same runtime, else the source itself) run on the same few samples, and
the layers that both certainly have are compared one after another. Where that is not certain, nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from edgewright.backends import registry
from edgewright.backends.conversion import Conversion
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Traceable, TracedLayer
from edgewright.core.errors import EdgewrightError
from edgewright.core.program import Program, specs_from_json
from edgewright.core.result import Result, Status
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array
from edgewright.data.preparation import Prepared
from edgewright.measure.evaluation import Measured
from edgewright.measure.operations import batch_of, load_data
from edgewright.measure.parity import (
    MIN_SAMPLES_TO_CENTRE,
    SNR_CAP_DB,
    SPARSE_ALLOWANCE_DB,
    SPARSE_SHARE,
    TOLERANCES,
    compare_outputs,
    judge,
)
from edgewright.workers.pool import Limits, call_once

_FIND = "edgewright.measure.divergence:find"
_LIMITS = Limits(timeout_s=300.0, memory_bytes=4 << 30)
_SAMPLES = 8
_MAX_TRACE_BYTES = 64 << 20
_MAX_NAME_CHARACTERS = 100
_MIN_VARIED_SHARE = 1e-6  # below, an output that does not vary: rounding is all that is left


def explain_divergence(
    results: Sequence[Result],
    conversions: Mapping[str, Conversion],
    measured: Measured,
    prepared: Prepared,
    program: Program,
) -> list[Result]:
    """Return `results` with the first diverging layer in the reason of those that do not follow their source.

    Nothing else changes, and a search that fails or finds nothing certain leaves the reason as it was.
    """
    sound = {r.target.artifact_id for r in results if r.status is not Status.FAILED and _follows(r, measured)}
    found: dict[str, str] = {}
    explained = []
    for result in results:
        name = result.target.artifact_id
        artifact = conversions[name].artifact
        if result.status is not Status.DEGRADED or artifact is None or _follows(result, measured):
            explained.append(result)
            continue
        if name not in found:
            twin_id = f"{result.target.runtime}-{Precision.FP32}"
            twin = conversions[twin_id].artifact if twin_id in sound and twin_id != name else None
            found[name] = first_divergence(artifact, twin, program, prepared.folder)
        reason = "; ".join(filter(None, (result.reason, found[name])))
        explained.append(replace(result, reason=reason))
    return explained


def first_divergence(artifact: Artifact, twin: Artifact | None, program: Program, data: Path) -> str:
    """Return a phrase that names the first layer of `artifact` that diverges, or "" where none is certain.

    Args:
        twin: a sound artifact of the same runtime; None compares with the source itself.
        data: folder of the samples, <position of the program's input>.npy.
    """
    if twin is None and program.format == "pt2":
        return ""  # torch's operators are not those of any runtime
    try:
        answer = call_once(
            _FIND,
            {
                "artifact": artifact.to_json(),
                "twin": None if twin is None else twin.to_json(),
                "program": program.to_json(),
                "data": str(data),
            },
            limits=_LIMITS,
        )
    except EdgewrightError:
        return ""  # an explanation that fails takes nothing away from what was measured
    return str(answer["phrase"])


def _follows(result: Result, measured: Measured) -> bool:
    measurement = measured.targets.get(result.target.id)
    if measurement is None or measurement.error is not None or not measurement.outputs:
        return False
    try:
        parity = compare_outputs(measured.reference, measurement.outputs)
        return judge(parity, str(result.target.precision))[0]
    except EdgewrightError:
        return False


def find(arguments: dict[str, object]) -> dict[str, object]:
    """Trace both models and name the first diverging layer; runs in a worker.

    Arguments: artifact, twin (or null), program (records), data (folder).
    Result: phrase, empty where nothing is certain; compared, the number of layers that were.
    """
    record, twin_record, source = arguments["artifact"], arguments["twin"], arguments["program"]
    assert isinstance(record, dict)
    assert isinstance(source, dict)
    artifact, program = Artifact.from_json(record), Program.from_json(source)
    if isinstance(twin_record, dict):
        twin = Artifact.from_json(twin_record)
    else:
        reference = registry.get("reference")
        target = Target(runtime="reference")
        twin = reference.convert(program, target, None, artifact.path.parent)
    own, base = registry.get(artifact.target.runtime), registry.get(twin.target.runtime)
    if not isinstance(own, Traceable) or not isinstance(base, Traceable):
        return {"phrase": "", "compared": 0}
    data = Path(str(arguments["data"]))
    sources = specs_from_json(source["inputs"])
    arrays = load_data(data, sources)
    count = len(arrays[0])
    chosen = [int(i) for i in np.linspace(0, count - 1, num=min(count, _SAMPLES))]
    expected = base.trace(
        twin,
        twin.target,
        (batch_of(arrays, sources, twin.inputs, i, i + 1) for i in chosen),
        max_bytes=_MAX_TRACE_BYTES,
    )
    got = own.trace(
        artifact,
        artifact.target,
        (batch_of(arrays, sources, artifact.inputs, i, i + 1) for i in chosen),
        max_bytes=_MAX_TRACE_BYTES,
    )
    comparison = Comparison(is_same_runtime=isinstance(twin_record, dict))
    for reference_layers, layers in zip(expected, got, strict=True):
        comparison.add(reference_layers, layers)
    return {
        "phrase": comparison.phrase(str(artifact.target.precision)),
        "compared": comparison.compared,
    }


def pair_layers(
    expected: Sequence[TracedLayer], got: Sequence[TracedLayer], *, is_same_runtime: bool
) -> list[tuple[int, int]]:
    """Return the positions of layers that are certainly the same, in the order of `expected`; [] where that is unclear.

    Layers pair by a name that is unique in both graphs. Where an export renamed them, all layers pair by position,
    if both graphs have the same operators with the same shapes and sources in the same order, and no name contradicts.
    """
    first, second = _positions(expected), _positions(got)
    named = {(first[name], second[name]) for name in first.keys() & second.keys()}
    pairs = sorted(
        (i, j) for i, j in named if _is_alike(expected[i], got[j], is_same_runtime=is_same_runtime)
    )
    lefts, rights = [i for i, _ in pairs], [j for _, j in pairs]
    is_one_to_one = len(set(lefts)) == len(set(rights)) == len(pairs)
    if is_one_to_one and _weighted(expected) <= set(lefts) and _weighted(got) <= set(rights):
        return pairs  # in whatever order: parallel branches may be written one way or the other
    placed = list(zip(range(len(expected)), range(len(got)), strict=False))
    is_equal = len(expected) == len(got) and all(
        _is_alike(expected[i], got[i], is_same_runtime=True) and expected[i].sources == got[i].sources
        for i, _ in placed
    )
    if is_same_runtime and is_equal and _agrees(named, placed):
        return placed
    return pairs if is_one_to_one and rights == sorted(rights) else []


def _agrees(named: set[tuple[int, int]], placed: Sequence[tuple[int, int]]) -> bool:
    """Return whether no name pairs a placed layer with another one than its place does."""
    by_first, by_second = dict(placed), {j: i for i, j in placed}
    return all(by_first.get(i, j) == j and by_second.get(j, i) == i for i, j in named)


def _positions(layers: Sequence[TracedLayer]) -> dict[str, int]:
    counts = Counter(name for layer in layers for name in set(layer.names))
    return {name: i for i, layer in enumerate(layers) for name in layer.names if counts[name] == 1}


def _is_alike(expected: TracedLayer, got: TracedLayer, *, is_same_runtime: bool) -> bool:
    if is_same_runtime and expected.operator != got.operator:
        return False
    if expected.output is None or got.output is None:
        return is_same_runtime
    return expected.output.shape == got.output.shape


def _weighted(layers: Sequence[TracedLayer]) -> set[int]:
    return {i for i, layer in enumerate(layers) if layer.is_weighted}


@dataclass
class _Sums:
    """Sums over samples of one layer; `total` has the shape of its output."""

    total: npt.NDArray[np.float64]
    energy: float = 0.0
    noise: float = 0.0
    count: int = 0

    def add(self, expected: Array, got: Array) -> None:
        wide = expected.astype(np.float64)
        self.total = self.total + wide
        self.energy += float(np.sum(wide**2))
        difference = got.astype(np.float64) - wide
        self.noise += float(np.sum(difference**2)) if np.isfinite(difference).all() else float("inf")
        self.count += 1

    def snr_db(self) -> tuple[float, float]:
        """Return the SNR of what varies between the samples, and the allowance for little variation; see parity."""
        varied = self.energy
        if self.count >= MIN_SAMPLES_TO_CENTRE:
            centred = self.energy - float(np.sum(self.total**2)) / self.count
            varied = centred if centred > _MIN_VARIED_SHARE * self.energy else self.energy
        share = varied / self.energy if self.energy > 0.0 else 1.0
        allowance = SPARSE_ALLOWANCE_DB if share < SPARSE_SHARE else 0.0
        if self.noise == 0.0:
            return SNR_CAP_DB, allowance
        if varied == 0.0 or self.noise == float("inf"):
            return -SNR_CAP_DB, allowance
        return float(np.clip(10.0 * log10(varied / self.noise), -SNR_CAP_DB, SNR_CAP_DB)), allowance


class Comparison:
    """The layers of two models over several samples."""

    def __init__(self, *, is_same_runtime: bool) -> None:
        self._is_same_runtime = is_same_runtime
        self._pairs: list[tuple[int, int]] = []
        self._sums: dict[int, _Sums] = {}
        self._layers: list[TracedLayer] = []

    @property
    def compared(self) -> int:
        """The number of layers that both models have and that were compared."""
        return len(self._sums)

    def add(self, expected: Sequence[TracedLayer], got: Sequence[TracedLayer]) -> None:
        """Take in one sample."""
        if not self._layers:
            self._pairs = pair_layers(expected, got, is_same_runtime=self._is_same_runtime)
            self._layers = [replace(layer, output=None) for layer in got]
        for i, j in self._pairs:
            first, second = expected[i].output, got[j].output
            if first is None or second is None or first.shape != second.shape:
                continue
            sums = self._sums.setdefault(j, _Sums(total=np.zeros(first.shape, dtype=np.float64)))
            sums.add(first, second)

    def phrase(self, precision: str) -> str:
        """Return "first diverging layer: NAME (OPERATOR), SNR ...", or "" where no layer can be named.

        A layer diverges when it is under the tolerance of `precision`, and so are at least half of the layers after
        it: noise that later layers take away again is not the cause.
        """
        needed = TOLERANCES[precision].varied_snr_db
        rows = [(j, *self._sums[j].snr_db()) for _, j in self._pairs if j in self._sums]
        margins = [snr - (needed - allowance) for _, snr, allowance in rows]
        for place, (j, snr, allowance) in enumerate(rows):
            if margins[place] >= 0.0 or median(margins[place:]) >= 0.0:
                continue
            layer = self._layers[j]
            before = f"{rows[place - 1][1]:.1f} dB before it; " if place else ""
            unseen = self._unseen_before(j, {k for k, *_ in rows})
            unseen_words = f"; {unseen} layers that it reads could not be compared" if unseen else ""
            return (
                f"first diverging layer: {_shown(layer, j)} ({layer.operator}), SNR {snr:.1f} dB "
                f"({before}{needed - allowance:g} dB needed{unseen_words})"
            )
        return ""

    def _unseen_before(self, position: int, seen: set[int]) -> int:
        """Return how many layers stand uncompared between a layer and the compared ones that it depends on."""
        unseen: set[int] = set()
        waiting = list(self._layers[position].sources)
        while waiting:
            source = waiting.pop()
            if source not in seen and source not in unseen:
                unseen.add(source)
                waiting += self._layers[source].sources
        return sum(self._layers[k].is_weighted for k in unseen)


def _shown(layer: TracedLayer, position: int) -> str:
    """Return the layer's name; of a long path of modules the last part, which is what tells layers apart."""
    if not layer.names:
        return f"number {position + 1}"
    name = layer.names[0]
    return (
        name if len(name) <= _MAX_NAME_CHARACTERS else "..." + name.rpartition("/")[2][-_MAX_NAME_CHARACTERS:]
    )
