"""The step "entropy": every runtime's artifact of the last program, packed losslessly for the download."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.compress.passes import Bench, Compressed
from edgewright.core.program import Program


@dataclass(frozen=True, kw_only=True)
class EntropyOptions:
    """There is nothing to choose: the container takes the shortest coding of each tensor."""


class EntropyPass:
    """Leaves the program as it is; the driver packs its artifacts, which exist after the last pass only."""

    name = "entropy"
    summary = "pack each runtime's artifact into a lossless .ewz container, for the download"
    precisions: tuple[str, ...] = ("fp32", "fp16", "w8", "w8a8", "w4a8")
    Options = EntropyOptions

    def run(self, program: Program, options: EntropyOptions, bench: Bench) -> Compressed:
        """Return `program` unchanged."""
        return Compressed(program=program, facts={}, tables={})


PASS = EntropyPass()
