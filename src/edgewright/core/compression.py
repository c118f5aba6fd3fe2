"""What a compression found: its steps, and each step's artifact on each runtime beside the original's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgewright.core.result import Result

ORIGINAL = "original"

Cell = float | int | str


class StepState(StrEnum):
    """How a step came to be there."""

    DONE = "done"  # in this run
    KEPT = "kept"  # by an earlier run, and used again
    RESUMED = "resumed"  # from a checkpoint of an earlier run


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step of a compression; step 0 is the original.

    Attributes:
        number: 0 for the original, then 1, 2, ...
        name: of the pass.
        options: all of them, defaults included, as JSON values.
        program: path of the model after this step, relative to the output folder; of the original, as the user gave it.
        sha256: digest of that model's content.
        precision: of that model.
        parameters, macs: as of `edgewright inspect`; None where that cannot tell.
        sparsity: share of the weights that are exactly zero, 0..1; None where it is not known.
        seconds: wall time of the pass, over all runs that had a part in it.
        facts, tables, notes: what the pass says of itself, see `compress.passes.Compressed`.
    """

    number: int
    name: str
    options: Mapping[str, object]
    program: str
    sha256: str
    precision: str
    parameters: int | None
    macs: int | None
    sparsity: float | None
    seconds: float
    seed: int
    state: StepState = StepState.DONE
    facts: Mapping[str, Cell]
    tables: Mapping[str, list[dict[str, Cell]]]
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """A name that is unique in the chain, and of the step's folder: `01-prune`; `original` for step 0."""
        return ORIGINAL if self.number == 0 else step_id(self.number, self.name)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "id": self.id,
            **vars(self),
            "state": str(self.state),
            "options": dict(self.options),
            "facts": dict(self.facts),
            "tables": {title: list(rows) for title, rows in self.tables.items()},
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(record: Mapping[str, object]) -> StepRecord:
        """Return the step that `to_json` wrote."""
        options, facts = record["options"], record["facts"]
        tables, notes = record["tables"], record["notes"]
        assert isinstance(options, dict)
        assert isinstance(facts, dict)
        assert isinstance(tables, dict)
        assert isinstance(notes, list)
        parameters, macs, sparsity = record["parameters"], record["macs"], record["sparsity"]
        return StepRecord(
            number=int(str(record["number"])),
            name=str(record["name"]),
            options=options,
            program=str(record["program"]),
            sha256=str(record["sha256"]),
            precision=str(record["precision"]),
            parameters=None if parameters is None else int(str(parameters)),
            macs=None if macs is None else int(str(macs)),
            sparsity=None if sparsity is None else float(str(sparsity)),
            seconds=float(str(record["seconds"])),
            seed=int(str(record["seed"])),
            state=StepState(str(record["state"])),
            facts=facts,
            tables=tables,
            notes=tuple(str(note) for note in notes),
        )


def step_id(number: int, name: str) -> str:
    """Return the name of step `number` and of its folder."""
    return f"{number:02d}-{name.rpartition(':')[2].lower()}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step's artifact on one runtime.

    Attributes:
        result: parity is against the step's own program (is the conversion right?), the metric and its drop against
            the original source, `speed_up` is the original's p50 on this runtime divided by this one's;
            `size_bytes` are those on disk, `memory_bytes` the measured peak, `download_bytes` those of the file
            as `.ewz`, whether the chain packs it or not.
        download_bytes: what travels: the files as they are, or the `.ewz` container; None without an artifact.
        is_packed: the download is an `.ewz` container.
    """

    step: str
    runtime: str
    result: Result
    download_bytes: int | None
    is_packed: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the row of results.json."""
        record = self.result.to_json()
        del record["budget"]
        record["disk_bytes"] = record.pop("size_bytes")
        record["ram_bytes"] = record.pop("memory_bytes")
        record["packed_bytes"] = record.pop("download_bytes")
        return {
            **record,
            "id": f"{self.step}/{self.runtime}",
            "step": self.step,
            "runtime": self.runtime,
            "download_bytes": self.download_bytes,
            "is_packed": self.is_packed,
        }


@dataclass(frozen=True, kw_only=True)
class CompressionSummary:
    """Everything that results.json of a compression holds and its report shows.

    Attributes:
        source: path, format, digest, precision and signature of the original.
        steps: the original first, then each pass.
        rows: for every step every runtime, in the order of steps, then of runtimes.
        conditions: host, versions, seeds, data: what the figures depend on.
        commands: step id -> the command that builds this step's model for every runtime.
        failure: why the chain ended before its last step; empty when it did not.
    """

    source: Mapping[str, object]
    steps: tuple[StepRecord, ...]
    rows: tuple[Row, ...]
    conditions: Mapping[str, object]
    commands: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    failure: str = ""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes, in the order of the recipe."""
        return tuple(dict.fromkeys(row.runtime for row in self.rows))

    def rows_of(self, step: str) -> tuple[Row, ...]:
        """Return the rows of the step with this id."""
        return tuple(row for row in self.rows if row.step == step)

    def to_json(self) -> dict[str, object]:
        """Return the content of results.json."""
        return {
            "source": dict(self.source),
            "steps": [step.to_json() for step in self.steps],
            "results": [row.to_json() for row in self.rows],
            "commands": dict(self.commands),
            "warnings": list(self.warnings),
            "failure": self.failure or None,
            "conditions": dict(self.conditions),
        }
