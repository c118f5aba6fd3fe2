"""Convert one program for many targets, side by side in workers, with finished conversions from the cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.backends import registry
from edgewright.bridges.registry import route
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Backend, Bridge, Calibration
from edgewright.core.errors import ConversionError, EdgewrightError, UnavailableError, UnknownNameError
from edgewright.core.program import Program
from edgewright.core.progress import Progress
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.workers.cache import Cache
from edgewright.workers.jobs import Job, JobEvent, JobState, Outcome, map_jobs
from edgewright.workers.limits import limits_from_environment
from edgewright.workers.pool import Limits

_CROSS = "edgewright.bridges.operations:cross"
_CONVERT = "edgewright.backends.operations:convert"
_QUANTIZE = "edgewright.compress.quantize:quantize"
_MAX_NOTE_CHARACTERS = 400
_LIMITS = Limits(timeout_s=1800.0, memory_bytes=16 << 30)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The artifact, or why there is none."""

    artifact: Artifact | None = None
    error: EdgewrightError | None = None


@dataclass(frozen=True, kw_only=True)
class _Request:
    name: str
    backend: Backend
    target: Target
    calibration: Calibration | None
    route: tuple[Bridge, ...]
    needs_pt2e: bool
    key: str


def convert_all(
    program: Program,
    targets: Sequence[Target],
    calibration: Calibration | None,
    *,
    workdir: Path,
    cache: Cache,
    progress: Progress,
) -> dict[str, Conversion]:
    """Return one conversion per artifact id of `targets`; a failing one never stops the others.

    A runtime that does not read the program's format is reached over bridges, and each is crossed once for all.
    Where a runtime's own reader of the format refuses the model, the next format that it reads is tried.
    A precision that PT2E quantizes is quantized once, and that one program is lowered by every runtime.

    Raises:
        UnknownNameError: a runtime that nobody registers.
    """
    outcomes: dict[str, Conversion] = {}
    requests: list[_Request] = []
    for target in {target.artifact_id: replace(target, threads=1) for target in targets}.values():
        name = target.artifact_id
        try:
            request = _request(program, registry.get(target.runtime), target, calibration, cache)
        except UnknownNameError:
            raise
        except EdgewrightError as err:
            outcomes[name] = Conversion(error=err)
            progress(name, "convert", "unavailable" if isinstance(err, UnavailableError) else "failed")
            continue
        step = cache.get("convert", request.key)
        if step is None:
            requests.append(request)
            continue
        record = step.record
        artifact = Artifact.from_json(record)
        outcomes[name] = Conversion(
            artifact=artifact.moved(tuple(step.files[str(f)] for f in artifact.files))
        )
        progress(name, "convert", "cached")
    outcomes |= _convert(program, requests, calibration, workdir, progress)
    outcomes |= _convert_otherwise(program, requests, outcomes, calibration, workdir, progress)
    for request in requests:
        made = outcomes[request.name].artifact
        if made is not None:
            names = list(made.names)
            files = dict(zip(names, made.files, strict=True))
            cache.put("convert", request.key, made.to_json() | {"files": names}, files)
    return outcomes


def _request(
    program: Program, backend: Backend, target: Target, calibration: Calibration | None, cache: Cache
) -> _Request:
    support = backend.probe()
    if not support.is_available:
        raise UnavailableError(support.reason)
    if target.precision not in backend.precisions:
        known = ", ".join(backend.precisions)
        raise UnavailableError(
            f"{backend.name} makes {known}, but not {target.precision}: choose with --precision."
        )
    bridges = route(program.format, backend.consumes, runtime=target.runtime)
    lowered = replace(program, format=bridges[-1].writes if bridges else program.format)
    reason = backend.refuses(lowered, target)
    if reason is not None:
        raise UnavailableError(reason)
    is_calibrated = target.precision in INTEGER_PRECISIONS and program.precision == Precision.FP32
    if is_calibrated and calibration is None:
        raise UnavailableError(
            f"{target.precision} needs calibration samples: give --calibration, or --data to take them from. "
            "Random numbers are never used."
        )
    used = calibration if is_calibrated else None
    parts: dict[str, object] = {
        "program": program.sha256,
        "inputs": [spec.to_json() for spec in program.inputs],
        "target": target.to_json(),
        "calibration": used.sha256 if used else None,
        "versions": support.versions,
        "route": [[bridge.name, bridge.probe().versions] for bridge in bridges],
    }
    return _Request(
        name=target.artifact_id,
        backend=backend,
        target=target,
        calibration=used,
        route=bridges,
        needs_pt2e=backend.quantizer(lowered, target) is Quantizer.PT2E,
        key=cache.key("convert", parts),
    )


def _convert_otherwise(
    program: Program,
    requests: Sequence[_Request],
    outcomes: dict[str, Conversion],
    calibration: Calibration | None,
    workdir: Path,
    progress: Progress,
) -> dict[str, Conversion]:
    """Convert over another format what its backend could not convert of the first; the first error stays if that fails.

    OpenVINO's reader of `.tflite` has no recurrent layers, for instance, and its reader of ONNX has.
    """
    again = []
    for request in requests:
        if isinstance(outcomes[request.name].error, ConversionError):
            other = _other_way(program, request)
            if other is not None:
                again.append(other)
    made = _convert(program, again, calibration, workdir / "otherwise", progress) if again else {}
    found = {}
    for request in again:
        conversion = made[request.name]
        if conversion.artifact is not None:
            note = f"made another way, for {program.format} directly failed: {outcomes[request.name].error}"
            if len(note) > _MAX_NOTE_CHARACTERS:
                note = f"{note[:_MAX_NOTE_CHARACTERS].rstrip()} [...]"
            notes = (*conversion.artifact.notes, note)
            found[request.name] = Conversion(artifact=replace(conversion.artifact, notes=notes))
    return found


def _other_way(program: Program, request: _Request) -> _Request | None:
    """Return the request over the next format that the backend reads, or None when there is none."""
    used = request.route[-1].writes if request.route else program.format
    rest = [form for form in request.backend.consumes if form not in (used, program.format)]
    try:
        bridges = route(program.format, rest, runtime=request.target.runtime) if rest else ()
    except UnavailableError:
        return None
    if not bridges:
        return None
    lowered = replace(program, format=bridges[-1].writes)
    if request.backend.refuses(lowered, request.target) is not None:
        return None
    needs_pt2e = request.backend.quantizer(lowered, request.target) is Quantizer.PT2E
    return replace(request, route=bridges, needs_pt2e=needs_pt2e)


def _convert(
    program: Program,
    requests: Sequence[_Request],
    calibration: Calibration | None,
    workdir: Path,
    progress: Progress,
) -> dict[str, Conversion]:
    """Run the conversions; each waits for the bridges and the quantization that it shares with others."""
    plan = _Plan(program, calibration, workdir)
    # What others wait for goes first, then what waits for nothing, so that no worker is idle.
    needed = {request.name: plan.prepare(request) for request in requests}
    for request in sorted(requests, key=lambda request: needed[request.name] is not None):
        plan.add(request, after=needed[request.name])
    answers = _map(plan.jobs, plan.names, progress)
    by_name = dict(zip(plan.names, answers, strict=True))
    return {
        request.name: _conversion(by_name[request.name], program, request, workdir / request.name)
        for request in requests
    }


class _Plan:
    """The jobs of one conversion of many targets. The result of a step, {"program": ...}, is the next one's program."""

    def __init__(self, program: Program, calibration: Calibration | None, workdir: Path) -> None:
        self._program = program
        self._calibration = calibration
        self._workdir = workdir
        self._positions: dict[str, int] = {}
        self.jobs: list[Job] = []
        self.names: list[str] = []

    def prepare(self, request: _Request) -> int | None:
        """Add what must be done before `request`; return the position of the last of it."""
        after: int | None = None
        steps: list[str] = []
        for bridge in request.route:
            steps.append(bridge.name)
            after = self._step(
                "+".join(steps),
                key=bridge.name,
                operation=_CROSS,
                arguments={"bridge": bridge.name},
                after=after,
                environment=bridge.environment,
            )
        if not request.needs_pt2e:
            return after
        assert self._calibration is not None
        precision = str(request.target.precision)
        return self._step(
            "+".join((*steps, f"pt2e-{precision}")),
            # PT2E is torch alone, as is the reading of a runtime that lowers it: they share torch's import.
            key=request.target.runtime,
            operation=_QUANTIZE,
            arguments={"precision": precision, "calibration": self._calibration.to_json()},
            after=after,
        )

    def add(self, request: _Request, *, after: int | None) -> None:
        """Add the conversion itself."""
        calibration = None if request.calibration is None else request.calibration.to_json()
        self._step(
            request.name,
            key=request.target.runtime,
            operation=_CONVERT,
            arguments={"target": request.target.to_json(), "calibration": calibration},
            after=after,
            environment=request.backend.environment,
        )

    def _step(
        self,
        name: str,
        *,
        key: str,
        operation: str,
        arguments: dict[str, object],
        after: int | None,
        environment: str = "",
    ) -> int:
        if name not in self._positions:
            self._positions[name] = len(self.jobs)
            self.names.append(name)
            common = {"program": self._program.to_json(), "workdir": str(self._workdir / name)}
            self.jobs.append(
                Job(
                    key=key,
                    operation=operation,
                    arguments=common | arguments,
                    after=after,
                    environment=environment,
                )
            )
        return self._positions[name]


def _map(jobs: Sequence[Job], names: Sequence[str], progress: Progress) -> list[Outcome]:
    words = {_CROSS: "cross", _QUANTIZE: "quantize"}

    def show(event: JobEvent) -> None:
        step = words.get(event.job.operation, "convert")
        if event.state is JobState.STARTED:
            progress(names[event.index], step, "running")
        else:
            progress(
                names[event.index], step, "failed" if isinstance(event.outcome, EdgewrightError) else "done"
            )

    if not jobs:
        return []
    limits = limits_from_environment(_LIMITS)
    return map_jobs(jobs, max_workers=max(os.cpu_count() or 1, 1), limits=limits, on_event=show)


def _conversion(answer: Outcome, source: Program, request: _Request, workdir: Path) -> Conversion:
    """Return the artifact of an answer, traced to the user's source over the bridges, or the error."""
    if isinstance(answer, EdgewrightError):
        return Conversion(error=answer)
    record, lowered = answer["artifact"], answer["program"]
    assert isinstance(record, dict)
    assert isinstance(lowered, dict)
    artifact = Artifact.from_json(record)
    strangers = [str(file) for file in artifact.files if workdir not in file.parents]
    if strangers:
        return Conversion(error=ConversionError(f"the backend wrote outside its folder: {strangers[0]}."))
    crossed = Program.from_json(lowered)
    notes = [note for note in crossed.notes if note not in source.notes]
    if request.route:
        steps = " -> ".join((source.format, *(bridge.writes for bridge in request.route)))
        notes.insert(0, f"reached over {steps}")
    versions = {name: v for bridge in request.route for name, v in bridge.probe().versions.items()}
    return Conversion(
        artifact=replace(
            artifact,
            source_sha256=source.sha256,
            toolchain=versions | dict(artifact.toolchain),
            notes=(*notes, *artifact.notes),
        )
    )
