"""Evidence: one measurement with its subject, its conditions and its samples, as an in-toto Statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://edgewright.dev/evidence/v1"


class EvidenceKind(StrEnum):
    """What was measured."""

    PARITY = "parity"
    ACCURACY = "accuracy"
    LATENCY = "latency"
    MEMORY = "memory"
    SIZE = "size"
    ENERGY = "energy"
    PLACEMENT = "placement"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One measurement.

    Attributes:
        subject_name, subject_sha256: the artifact measured.
        metrics: JSON values; the unit is in the key.
        conditions: host, versions, threads, seeds, sample counts.
        samples: the raw values behind the metrics, name -> list.
    """

    kind: EvidenceKind
    subject_name: str
    subject_sha256: str
    metrics: Mapping[str, object]
    conditions: Mapping[str, object]
    samples: Mapping[str, list[float]] = field(default_factory=dict)

    def to_statement(self) -> dict[str, object]:
        """Return the in-toto Statement v1. Source: in-toto Attestation Framework, spec v1.0."""
        return {
            "_type": _STATEMENT_TYPE,
            "subject": [{"name": self.subject_name, "digest": {"sha256": self.subject_sha256}}],
            "predicateType": _PREDICATE_TYPE,
            "predicate": {
                "kind": str(self.kind),
                "metrics": dict(self.metrics),
                "conditions": dict(self.conditions),
                "samples": {name: list(values) for name, values in self.samples.items()},
            },
        }
