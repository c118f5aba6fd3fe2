"""The tables of supported operators, written by scripts/support_tables.py from the toolchains themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of a registry: the versions of the operator's definition, and the types it takes.

    Attributes:
        since, until: it serves definitions of these versions; see `serves`.
        types: type variable -> names as the runtime spells them; a variable that is not in it is free.
    """

    since: int
    until: int
    types: Mapping[str, frozenset[str]]

    def serves(self, version: int) -> bool:
        """Return whether the kernel serves the operator's definition of `version`.

        An open-ended kernel serves its own version alone: ONNX Runtime does not assume that a later definition
        means the same.
        """
        is_open = self.until >= _OPEN
        return self.since == version or (not is_open and self.since < version <= self.until)


_OPEN = 1 << 20
# What a probe says of the types of its model's inputs and outputs, and nothing of the operator.
_SIGNATURE = r"\w+ (takes|gives) "


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What the runtime's own edition of ONNX says of an operator since version `since`."""

    since: int
    max_inputs: int
    attributes: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class FormatTable:
    """What a runtime takes of one format.

    Attributes:
        how: where the table comes from (a registry, or probed).
        operators: operator -> versions of its definition; none where versions play no part.
        kernels: operator -> kernels, where the toolchain tells types.
        definitions: operator -> its definitions that the runtime knows, ascending.
        functions: operators that are written out as others where there is no kernel.
        decomposed: operators that the converter replaces by others itself.
        kept_whole: operators that the converter does not decompose.
        names: operators without overload.
        delegated: operator -> numeric schemes that an accelerator takes.
        probes: operator -> dtypes of a model of this operator alone -> why it was refused; empty when it was taken.
        last_opset: ONNX: the last version of the standard domain that is read; 0 where it is not known.
    """

    how: str
    operators: Mapping[str, tuple[int, ...]]
    kernels: Mapping[str, tuple[Kernel, ...]]
    definitions: Mapping[str, tuple[Definition, ...]]
    functions: frozenset[str]
    decomposed: frozenset[str]
    kept_whole: frozenset[str]
    names: frozenset[str]
    delegated: Mapping[str, tuple[str, ...]]
    probes: Mapping[str, Mapping[str, str]]
    last_opset: int

    def refused(self, operator: str, dtypes: Sequence[str]) -> str | None:
        """Return why a model of `operator` alone was refused, an empty text if it was taken, None if nobody tried.

        Args:
            dtypes: of the operator's inputs, a "*" after those of constants. Where just these were not tried, it is
                enough that the probe nearest to them was taken; a refusal then counts only if it says that the
                operator is missing as such.
        """
        tried = self.probes.get(operator, {})
        exact = tried.get(",".join(dtypes))
        if exact is not None:
            return exact
        first = dtypes[0].rstrip("*") if dtypes else ""
        scores: dict[str, int] = {}
        for key in tried:
            probed = key.split(",")
            if probed[0].rstrip("*") == first:
                alike = sum(a == b for a, b in zip(probed, dtypes, strict=False))
                scores[key] = alike - abs(len(probed) - len(dtypes))
        nearest = [tried[key] for key, score in scores.items() if score == max(scores.values())]
        if not nearest or "" in nearest:
            return "" if nearest else None
        return next((reason for reason in nearest if "has no operator for" in reason), None)

    def lacks(self, operator: str) -> bool:
        """Return whether the probes agree that the runtime has no such operator, whatever its inputs are."""
        told = [
            reason for reason in self.probes.get(operator, {}).values() if not re.match(_SIGNATURE, reason)
        ]
        return bool(told) and all(f"has no operator for {operator}." in reason for reason in told)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one runtime takes.

    Attributes:
        versions: package -> version that the table was made from.
        formats: program format -> its table.
    """

    runtime: str
    versions: Mapping[str, str]
    formats: Mapping[str, FormatTable]


@cache
def load_table(runtime: str) -> Table | None:
    """Return the table of `runtime`, or None where there is none."""
    registry, probes = _read(f"{runtime}.json"), _read(f"{runtime}.probes.json")
    if registry is None and probes is None:
        return None
    formats = dict(registry["formats"]) if registry else {}
    probed: dict[str, Mapping[str, Mapping[str, str]]] = {}
    if probes is not None:
        probed[probes["format"]] = probes["operators"]
        formats.setdefault(probes["format"], {"how": "probed"})
    return Table(
        runtime=runtime,
        versions=(registry or probes or {})["versions"],
        formats={name: _format(entry, probed.get(name, {})) for name, entry in formats.items()},
    )


def _read(name: str) -> dict[str, Any] | None:
    path = files("edgewright.explain") / "tables" / name
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(record, dict)
    return record


def _format(record: Mapping[str, object], probes: Mapping[str, Mapping[str, str]]) -> FormatTable:
    kernels, delegated = record.get("kernels", {}), record.get("delegated", {})
    definitions = record.get("definitions", {})
    assert isinstance(definitions, dict)
    assert isinstance(kernels, dict)
    assert isinstance(delegated, dict)
    return FormatTable(
        how=str(record["how"]),
        operators=_operators(record.get("operators", [])),
        kernels={name: tuple(_kernel(entry) for entry in entries) for name, entries in kernels.items()},
        definitions={
            name: tuple(
                Definition(since=since, max_inputs=count, attributes=frozenset(attributes))
                for since, count, attributes in entries
            )
            for name, entries in definitions.items()
        },
        functions=_names(record.get("functions", [])),
        decomposed=_names(record.get("decomposed", [])),
        kept_whole=_names(record.get("kept_whole", [])),
        names=_names(record.get("names", [])),
        delegated={name: tuple(schemes) for name, schemes in delegated.items()},
        probes=probes,
        last_opset=int(str(record.get("last_opset", 0))),
    )


def _operators(record: object) -> dict[str, tuple[int, ...]]:
    if isinstance(record, dict):
        return {str(name): tuple(versions) for name, versions in record.items()}
    return dict.fromkeys(_names(record), ())


def _kernel(record: Sequence[object]) -> Kernel:
    since, until, types = record
    assert isinstance(types, dict)
    return Kernel(
        since=int(str(since)),
        until=int(str(until)),
        types={name: frozenset(allowed) for name, allowed in types.items()},
    )


def _names(record: object) -> frozenset[str]:
    assert isinstance(record, list)
    return frozenset(str(name) for name in record)
