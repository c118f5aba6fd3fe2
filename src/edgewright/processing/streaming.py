"""Long sound through a specification that takes a hop a run: one run after another, and their results joined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.audio import MAX_SAMPLES, Context, Resample
from edgewright.processing.planning import CheckedFlow, Plan
from edgewright.processing.processor import Execute, Processor
from edgewright.processing.specification import RawInput
from edgewright.processing.spectrum import OverlapAdd
from edgewright.processing.values import ValueType

_JOINED = ("audio", "codes")  # kinds whose results follow one another


def stream_input(checked: Plan) -> RawInput | None:
    """Return the input that takes a hop of a stream a run; None where the specification is not for streams."""
    inputs = checked.specification.inputs
    (first, *others) = inputs
    return first if first.kind == "audio" and first.samples and not others else None


def joined_types(checked: Plan) -> dict[str, ValueType]:
    """Return the types of the results of `stream`, by name."""
    return {
        name: kind.of(None) if kind.kind in _JOINED else kind.of(None, *kind.shape, kind="tensor")
        for name, kind in checked.results.items()
    }


def stream(
    checked: Plan, samples: Array, execute: Execute, *, start: Processor | None = None
) -> dict[str, Array]:
    """Run `checked` once for each hop of `samples`, float32 [n], and return the joined results by name.

    - Sound: the waveform, float32 [n]. What it lags behind the input is cut off its start, and zeros are fed after the
      end until it is complete.
    - Codes: one after another, int32.
    - Anything else: stacked, [ceil(n / hop), ...]; the last hop is filled up with zeros.

    Args:
        checked: with one input, audio of a fixed number of samples.
        samples: the whole sound, at the rate of the input.
        execute: runs a model.
        start: goes on with this processor instead of a new one; its states are kept.
    Raises:
        UsageError: the specification is not for streams, or of more runs than one, a result has another shape in each.
        DataError: no samples, or NaN.
    """
    row = stream_input(checked)
    if row is None:
        raise UsageError(
            "the specification is not for streams: one input, audio with `samples` (the hop), is expected."
        )
    if samples.ndim != 1 or not 1 <= samples.size <= MAX_SAMPLES or samples.dtype != np.float32:
        raise DataError(
            f"a stream is {samples.dtype}{list(samples.shape)}; float32 [n], n in 1..{MAX_SAMPLES}, is expected."
        )
    hop, processor = row.samples, start or Processor(checked)
    waves = _waves(checked)
    heard = -(-len(samples) // hop)
    runs = max([heard, *(wave.runs(len(samples), hop) for wave in waves.values())])
    if runs > 1:
        _check(checked)
    fed = np.zeros(runs * hop, dtype=np.float32)
    fed[: len(samples)] = samples
    made: dict[str, list[Array]] = {name: [] for name in checked.results}
    for begin in range(0, len(fed), hop):
        results = processor.run({row.name: fed[begin : begin + hop]}, execute)
        for name, array in results.items():
            made[name].append(array)
    return {
        name: waves[name].cut(np.concatenate(arrays), len(samples), hop)
        if name in waves
        else (np.concatenate if checked.results[name].kind in _JOINED else np.stack)(arrays[:heard])
        for name, arrays in made.items()
    }


def lags(checked: Plan) -> dict[str, int]:
    """Return by how many samples each waveform among the results of a stream comes behind its input, by name."""
    return {name: wave.lag for name, wave in _waves(checked).items()}


def stacked(
    checked: Plan, samples: Array, execute: Execute, *, start: Processor | None = None
) -> dict[str, Array]:
    """Return what each run gave, [runs, ...], by name; `samples` is a whole number of hops.

    Raises:
        UsageError: the specification is not for streams, or a result has another shape in each run.
        DataError: as of `stream`, or a hop that is not full.
    """
    row = stream_input(checked)
    if row is None or len(samples) % row.samples:
        raise DataError(f"{len(samples)} samples are no whole number of hops of a stream.")
    processor = start or Processor(checked)
    hops = samples.reshape(-1, row.samples)
    if len(hops) > 1:
        _check(checked)
    runs = [processor.run({row.name: hop}, execute) for hop in hops]
    return {name: np.stack([run[name] for run in runs]) for name in checked.results}


@dataclass(frozen=True, kw_only=True)
class _Wave:
    """A waveform among the results: samples that a run makes, and by how many they are late."""

    made: int
    lag: int

    def length(self, samples: int, hop: int) -> int:
        """Return how many samples belong to `samples` of the input."""
        return -(-samples * self.made // hop)

    def runs(self, samples: int, hop: int) -> int:
        """Return how many runs it takes until those are complete."""
        return -(-(self.length(samples, hop) + self.lag) // self.made)

    def cut(self, joined: Array, samples: int, hop: int) -> Array:
        """Return those of all that the runs made."""
        return joined[self.lag : self.lag + self.length(samples, hop)]


def _check(checked: Plan) -> None:
    for name, kind in checked.results.items():
        if kind.kind != "codes" and None in kind.shape:
            raise UsageError(f"result {name!r} is {kind}; a stream joins results of a known shape only.")
    for item in checked.order:
        if not isinstance(item, CheckedFlow):
            continue
        kinds = [type(step) for step in item.flow.steps]
        if Resample in kinds and Context not in kinds[: kinds.index(Resample)]:
            raise UsageError(
                f"{item.flow.name!r} has the step 'resample', which hears 0 beyond what it gets: it would click at the "
                "edges of hops. Put 'context' before it and 'fit_length' with at = \"centre\" after it, or record the "
                "stream at the rate of the model."
            )


def _waves(checked: Plan) -> dict[str, _Wave]:
    """Return the waveforms among the results, by name."""
    waves = {}
    for item in checked.order:
        if not isinstance(item, CheckedFlow) or item.flow not in checked.specification.results:
            continue
        made = item.result.shape[0] if item.result.kind == "audio" else None
        if not made:
            continue
        lag = 0
        for index, step in enumerate(item.flow.steps):
            if isinstance(step, OverlapAdd):
                length = item.taken(index)[0].shape[-1]
                assert length is not None
                lag = length - step.hop
        waves[item.flow.name] = _Wave(made=made, lag=lag)
    return waves
