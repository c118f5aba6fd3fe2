"""What conversion really makes of a sample, through the same worker operations as `edgewright convert`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.backends import registry
from edgewright.bridges.registry import route
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import EdgewrightError, UnavailableError, WorkerError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.workers.pool import Limits, Worker

_LIMITS = Limits(timeout_s=240.0, memory_bytes=6 << 30)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """ok, fallback, blocked, or unavailable (the toolchain is not here); with the reason or what ran where."""

    verdict: str
    detail: str = ""
    partitions: int | None = None


class Truth:
    """Converts and loads; one worker per runtime and bridge, and a file of outcomes that are known already."""

    def __init__(self, path: Path | None, workdir: Path, *, is_read_only: bool = False) -> None:
        self._path = path
        self._is_read_only = is_read_only
        self._known: dict[str, dict[str, object]] = {}
        if path is not None and path.is_file():
            self._known = json.loads(path.read_text(encoding="utf-8"))
        self._workdir = workdir
        self._workers: dict[str, Worker] = {}
        self._crossed: dict[str, Program | EdgewrightError] = {}

    def outcome(self, name: str, program: Program, runtime: str) -> Outcome:
        """Return what `runtime` makes of `program`."""
        key = f"{name} {runtime}"
        if key not in self._known and self._is_read_only:
            return Outcome(verdict="unavailable", detail="not known, and nothing new is converted")
        if key not in self._known:
            made = self._convert(program, runtime)
            if made.verdict != "unavailable":
                self._known[key] = {
                    "verdict": made.verdict,
                    "detail": made.detail,
                    "partitions": made.partitions,
                }
            else:
                return made
        record = self._known[key]
        partitions = record["partitions"]
        return Outcome(
            verdict=str(record["verdict"]),
            detail=str(record["detail"]),
            partitions=None if partitions is None else int(str(partitions)),
        )

    def save(self) -> None:
        """Write the outcomes."""
        if self._path is not None and not self._is_read_only:
            self._path.write_text(json.dumps(self._known, indent=0, sort_keys=True), encoding="utf-8")

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()

    def forget_crossings(self) -> None:
        """Free the folder and what was written for one sample."""
        self._crossed.clear()
        shutil.rmtree(self._workdir, ignore_errors=True)

    def _worker(self, name: str, environment: str = "") -> Worker:
        if name not in self._workers:
            self._workers[name] = Worker(name, limits=_LIMITS, environment=environment)
        return self._workers[name]

    def _convert(self, program: Program, runtime: str) -> Outcome:
        target = Target(runtime=runtime, precision=Precision.parse(program.precision))
        try:
            backend = registry.get(runtime)
            support = backend.probe()
            if not support.is_available:
                return Outcome(verdict="unavailable", detail=support.reason)
            bridges = route(program.format, backend.consumes, runtime=runtime)
        except EdgewrightError as err:
            is_away = isinstance(err, UnavailableError)
            return Outcome(verdict="unavailable" if is_away else "blocked", detail=str(err))
        workdir = self._workdir / runtime
        try:
            lowered = replace(program, format=bridges[-1].writes if bridges else program.format)
            reason = backend.refuses(lowered, target)
            if reason is not None:
                return Outcome(verdict="blocked", detail=reason)
            here = program
            for bridge in bridges:
                here = self._cross(bridge.name, bridge.environment, here)
            answer = self._worker(runtime, backend.environment).call(
                "edgewright.backends.operations:convert",
                {
                    "program": here.to_json(),
                    "target": target.to_json(),
                    "calibration": None,
                    "workdir": str(workdir),
                },
            )
            record = answer["artifact"]
            assert isinstance(record, dict)
            artifact = Artifact.from_json(record)
            loaded: dict[str, object] = {}
            if artifact.proof in (Proof.RUN, Proof.INTERPRETED):
                loaded = self._worker(runtime, artifact.environment).call(
                    "benchmarks.explain_inside:load", {"artifact": artifact.to_json()}
                )
        except WorkerError as err:
            return Outcome(verdict="blocked", detail=f"crash: {err}"[:300])
        except EdgewrightError as err:
            return Outcome(verdict="blocked", detail=str(err)[:500])
        finally:
            shutil.rmtree(workdir, ignore_errors=True)
        left = loaded.get("left")
        partitions = loaded.get("partitions")
        return Outcome(
            verdict="fallback" if left else "ok",
            detail=str(left or ""),
            partitions=None if partitions is None else int(str(partitions)),
        )

    def _cross(self, name: str, environment: str, program: Program) -> Program:
        key = f"{name} {program.format}"
        if key not in self._crossed:
            try:
                answer = self._worker(name, environment).call(
                    "edgewright.bridges.operations:cross",
                    {"bridge": name, "program": program.to_json(), "workdir": str(self._workdir / name)},
                )
                record = answer["program"]
                assert isinstance(record, dict)
                self._crossed[key] = Program.from_json(record)
            except EdgewrightError as err:
                self._crossed[key] = err
        made = self._crossed[key]
        if isinstance(made, EdgewrightError):
            raise made
        return made
