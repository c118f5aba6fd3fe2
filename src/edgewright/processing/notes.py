"""What is strange about raw inputs, though they are taken."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgewright.processing.audio import FitLength
from edgewright.processing.audio_files import sound_notes
from edgewright.processing.processor import Raw
from edgewright.processing.specification import RawInput, Specification

_WORDS = {"start": "the first", "centre": "the middle", "end": "the last"}


def raw_notes(specification: Specification, raw: Mapping[str, Raw]) -> tuple[str, ...]:
    """Return, as sentences, what is strange about the sound among `raw`: silent, clipped, longer than what is used."""
    notes = []
    for row in specification.inputs:
        if row.kind != "audio" or row.name not in raw:
            continue
        samples = np.asarray(raw[row.name], dtype=np.float32)
        found = [*sound_notes(samples), *_cut_notes(specification, row, samples.size)]
        notes += [f"{row.name}: {note}" for note in found]
    return tuple(notes)


def _cut_notes(specification: Specification, row: RawInput, samples: int) -> list[str]:
    if row.samples:
        return []  # a stream: the steps get a hop at a time
    for flow in specification.flows():
        step = flow.steps[0] if flow.steps and row.name in flow.sources else None
        # Twice as long is no clip that was cut a little late.
        if isinstance(step, FitLength) and samples >= 2 * step.samples:
            return [
                f"it has {samples} samples, of which {_WORDS[step.at]} {step.samples} are used. Cut it into clips to "
                "hear the rest"
            ]
    return []
