"""Convert one program for many targets, side by side in workers, with finished conversions from the cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.backends import registry
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Backend, Calibration
from edgewright.core.errors import ConversionError, EdgewrightError, UnavailableError, UnknownNameError
from edgewright.core.program import Program
from edgewright.core.progress import Progress
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.workers.cache import Cache
from edgewright.workers.jobs import Job, JobEvent, JobState, Outcome, map_jobs
from edgewright.workers.limits import limits_from_environment
from edgewright.workers.pool import Limits

_CONVERT = "edgewright.backends.operations:convert"
_QUANTIZE = "edgewright.compress.quantize:quantize"
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
            artifact=artifact.moved(tuple(step.files[f.name] for f in artifact.files))
        )
        progress(name, "convert", "cached")
    outcomes |= _convert(program, requests, calibration, workdir, progress)
    for request in requests:
        made = outcomes[request.name].artifact
        if made is not None:
            names = [file.name for file in made.files]
            cache.put("convert", request.key, made.to_json() | {"files": names}, made.files)
    return outcomes


def _request(
    program: Program, backend: Backend, target: Target, calibration: Calibration | None, cache: Cache
) -> _Request:
    support = backend.probe()
    if not support.is_available:
        raise UnavailableError(support.reason)
    if target.precision not in backend.precisions:
        known = ", ".join(backend.precisions)
        raise UnavailableError(f"{backend.name} makes {known}, but not {target.precision}.")
    reason = backend.refuses(program, target)
    if reason is not None:
        raise UnavailableError(reason)
    is_calibrated = target.precision is Precision.W8A8 and program.precision == Precision.FP32
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
    }
    return _Request(
        name=target.artifact_id,
        backend=backend,
        target=target,
        calibration=used,
        needs_pt2e=backend.quantizer(program, target) is Quantizer.PT2E,
        key=cache.key("convert", parts),
    )


def _convert(
    program: Program,
    requests: Sequence[_Request],
    calibration: Calibration | None,
    workdir: Path,
    progress: Progress,
) -> dict[str, Conversion]:
    """Run the conversions; what PT2E quantizes waits for the one quantization that all of it shares."""
    first = [request for request in requests if not request.needs_pt2e]
    later = [request for request in requests if request.needs_pt2e]
    precisions = sorted({request.target.precision for request in later})
    assert calibration is not None or not precisions
    jobs = [
        Job(
            # PT2E is torch alone, as is the reading of a runtime that lowers it: they share torch's import.
            key=later[-1].target.runtime,
            operation=_QUANTIZE,
            arguments={
                "program": program.to_json(),
                "precision": str(precision),
                "calibration": None if calibration is None else calibration.to_json(),
                "workdir": str(workdir / "quantized" / precision),
            },
        )
        for precision in precisions
    ]
    names = [f"pt2e-{precision}" for precision in precisions]
    jobs += [_job(request, program, workdir) for request in first]
    # The result of the quantization is {"program": ...}, which takes the place of the source.
    jobs += [
        replace(_job(request, program, workdir), after=precisions.index(request.target.precision))
        for request in later
    ]
    names += [request.name for request in (*first, *later)]
    answers = _map(jobs, names, progress)[len(precisions) :]
    return {
        request.name: _conversion(answer, program, workdir / request.name)
        for request, answer in zip((*first, *later), answers, strict=True)
    }


def _map(jobs: Sequence[Job], names: Sequence[str], progress: Progress) -> list[Outcome]:
    def show(event: JobEvent) -> None:
        step = "quantize" if event.job.operation == _QUANTIZE else "convert"
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


def _job(request: _Request, program: Program, workdir: Path) -> Job:
    return Job(
        key=request.target.runtime,
        operation=_CONVERT,
        arguments={
            "program": program.to_json(),
            "target": request.target.to_json(),
            "calibration": None if request.calibration is None else request.calibration.to_json(),
            "workdir": str(workdir / request.name),
        },
    )


def _conversion(answer: Outcome, source: Program, workdir: Path) -> Conversion:
    """Return the artifact of an answer, traced to the user's source, or the error."""
    if isinstance(answer, EdgewrightError):
        return Conversion(error=answer)
    record = answer["artifact"]
    assert isinstance(record, dict)
    artifact = replace(Artifact.from_json(record), source_sha256=source.sha256)
    strangers = [str(file) for file in artifact.files if workdir not in file.parents]
    if strangers:
        return Conversion(error=ConversionError(f"the backend wrote outside its folder: {strangers[0]}."))
    return Conversion(artifact=artifact)
