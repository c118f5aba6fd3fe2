"""What is foretold of a model: one Coverage per runtime, with its operators, partitions and blockers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What a runtime makes of an operator or of a model."""

    OK = "ok"
    FALLBACK = "fallback"  # it runs, but on a slower path than the runtime's fast one
    BLOCKED = "blocked"
    UNKNOWN = "unknown"  # there is no table to ask: never a guess


@dataclass(frozen=True, kw_only=True)
class OperatorCoverage:
    """One kind of operator in the model, as one runtime sees it.

    Attributes:
        operator: as the format that the runtime reads spells it (Conv, aten.conv2d.default, CONV_2D).
        count: how many of this kind get this verdict for this reason.
        reason: why it is not ok; empty when it is.
        rewrite: what to write instead; empty when nothing needs to change.
        layers: names of the first few.
        macs_share, parameters_share: part of the model's total, 0..1; None where the total is not known.
    """

    operator: str
    count: int
    verdict: Verdict
    reason: str = ""
    rewrite: str = ""
    layers: tuple[str, ...] = ()
    macs_share: float | None = None
    parameters_share: float | None = None

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "operator": self.operator,
            "count": self.count,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "rewrite": self.rewrite,
            "layers": list(self.layers),
            "macs_share": self.macs_share,
            "parameters_share": self.parameters_share,
        }


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What one runtime would make of the model.

    Attributes:
        route: the formats on the way, the source's first.
        reason: what blocks, sends back or leaves open the whole; empty when ok.
        accelerator: the delegate that the partitions belong to (XNNPACK); empty where the runtime has none.
        partitions: pieces that the accelerator gets; None where that is not known.
        accelerated_macs_share: part of the MACs inside those pieces, 0..1.
        toolchain: package -> version that the table was made from.
        notes: what the user should know besides, e.g. the precisions that are refused.
    """

    runtime: str
    verdict: Verdict
    route: tuple[str, ...]
    operators: tuple[OperatorCoverage, ...] = ()
    reason: str = ""
    accelerator: str = ""
    partitions: int | None = None
    accelerated_macs_share: float | None = None
    toolchain: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def blockers(self) -> tuple[OperatorCoverage, ...]:
        """The operators that block."""
        return tuple(entry for entry in self.operators if entry.verdict is Verdict.BLOCKED)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "runtime": self.runtime,
            "verdict": str(self.verdict),
            "route": list(self.route),
            "reason": self.reason,
            "operators": [entry.to_json() for entry in self.operators],
            "accelerator": self.accelerator,
            "partitions": self.partitions,
            "accelerated_macs_share": self.accelerated_macs_share,
            "toolchain": dict(self.toolchain),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class CostlyLayer:
    """A layer of the source and its part of the whole, 0..1 (None where a MAC count is not known)."""

    name: str
    operator: str
    macs: int | None
    parameters: int
    macs_share: float | None
    parameters_share: float | None

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "name": self.name,
            "operator": self.operator,
            "macs": self.macs,
            "parameters": self.parameters,
            "macs_share": self.macs_share,
            "parameters_share": self.parameters_share,
        }


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is foretold of one model.

    Attributes:
        layers: those that hold the cost, the dearest first.
        macs: of one inference; None when unknown.
    """

    model: str
    format: str
    sha256: str
    parameters: int
    macs: int | None
    coverages: tuple[Coverage, ...]
    layers: tuple[CostlyLayer, ...]

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "schema": "edgewright.explanation.v1",
            "model": self.model,
            "format": self.format,
            "sha256": self.sha256,
            "parameters": self.parameters,
            "macs": self.macs,
            "coverages": [coverage.to_json() for coverage in self.coverages],
            "layers": [layer.to_json() for layer in self.layers],
        }
