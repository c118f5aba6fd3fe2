"""Run the source and every artifact over the data, each in a fresh worker, and time the artifacts together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgewright.backends import registry
from edgewright.backends.conversion import Conversion
from edgewright.core.artifact import Artifact
from edgewright.core.errors import EdgewrightError
from edgewright.core.program import Program
from edgewright.core.progress import Progress
from edgewright.core.result import Layer
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, TensorSpec, to_layout
from edgewright.data.preparation import Prepared
from edgewright.measure.timing import Timing, TimingSettings, time_interleaved
from edgewright.workers.cache import Cache
from edgewright.workers.pool import Limits, Worker

_OPERATIONS = "edgewright.measure.operations"
_LIMITS = Limits(timeout_s=900.0)
_MAX_CACHED_OUTPUT_BYTES = 256 << 20


@dataclass(kw_only=True)
class Measurement:
    """What was measured of one target; `error` says why the rest is missing.

    Attributes:
        outputs: source output name -> [n, ...], in the source's layout.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    memory_bytes: int | None = None
    load_ms: float | None = None
    timing: Timing | None = None
    layers: tuple[Layer, ...] = ()
    error: EdgewrightError | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The source's outputs, and the measurement of each target by id."""

    reference: dict[str, Array]
    targets: Mapping[str, Measurement]


def evaluate_all(
    program: Program,
    targets: Sequence[Target],
    conversions: Mapping[str, Conversion],
    prepared: Prepared,
    *,
    workdir: Path,
    cache: Cache,
    progress: Progress,
    timing: TimingSettings | None = TimingSettings(),
) -> Measured:
    """Measure every converted target against the untouched source.

    Every target gets a fresh process, in which it is opened (memory), run over the data (outputs) and then timed,
    all targets interleaved (`timing` None: not timed). Opening and running go side by side within the cores;
    timing goes alone.

    Raises:
        EdgewrightError: the source itself cannot be run.
    """
    progress("source", "run", "running")
    reference = _reference(program, prepared, workdir / "reference", cache)
    progress("source", "run", "done")
    measurements: dict[str, Measurement] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for target in targets:
            if conversions[target.artifact_id].artifact is not None:
                measurements[target.id] = Measurement()
                workers[target.id] = stack.enter_context(_Lazy(target.id))
        by_id = {target.id: target for target in targets if target.id in workers}

        def evaluate(target: Target) -> None:
            artifact = conversions[target.artifact_id].artifact
            assert artifact is not None
            measurement = measurements[target.id]
            progress(target.id, "run", "running")
            try:
                _open_and_run(
                    workers[target.id], artifact, target, program, prepared, workdir / target.id, measurement
                )
                progress(target.id, "run", "done")
            except EdgewrightError as err:
                measurement.error = err
                progress(target.id, "run", "failed")

        with ThreadPoolExecutor(max_workers=max(os.cpu_count() or 1, 1)) as pool:
            for _ in pool.map(evaluate, by_id.values()):
                pass
        if timing is None:
            return Measured(reference=reference, targets=measurements)
        sound = {name: worker for name, worker in workers.items() if measurements[name].error is None}
        outcomes = time_interleaved(sound, timing, lambda name, step: progress(name, step, "running"))
        for name, outcome in outcomes.items():
            if isinstance(outcome, Timing):
                measurements[name].timing = outcome
                measurements[name].layers = _layers(workers[name], by_id[name], targets)
                progress(name, "time", "done")
            else:
                measurements[name].error = outcome
                progress(name, "time", "failed")
    return Measured(reference=reference, targets=measurements)


class _Lazy(Worker):
    """A worker that starts with its first call, not on entry: a machine with 24 targets starts them as it can."""

    def __init__(self, name: str) -> None:
        super().__init__(name, limits=_LIMITS)

    def __enter__(self) -> _Lazy:
        return self


def _reference(program: Program, prepared: Prepared, folder: Path, cache: Cache) -> dict[str, Array]:
    """Return the outputs of the untouched source, run by its own framework."""
    backend = registry.get("reference")
    support = backend.probe()
    key = cache.key(
        "reference",
        {"program": program.sha256, "data": prepared.dataset.sha256, "versions": support.versions},
    )
    step = cache.get("reference", key)
    if step is not None:
        return _read_outputs(step.files, program.outputs)
    target = Target(runtime="reference", precision=Precision.FP32, threads=max(os.cpu_count() or 1, 1))
    with Worker("reference", limits=_LIMITS) as worker:
        answer = worker.call(
            "edgewright.backends.operations:convert",
            {
                "program": program.to_json(),
                "target": target.to_json(),
                "calibration": None,
                "workdir": str(folder),
            },
        )
        record = answer["artifact"]
        assert isinstance(record, dict)
        outputs = Measurement()
        _open_and_run(
            worker, Artifact.from_json(record), target, program, prepared, folder / "outputs", outputs
        )
    files = sorted((folder / "outputs").glob("*.npy"))
    if sum(file.stat().st_size for file in files) <= _MAX_CACHED_OUTPUT_BYTES:
        cache.put("reference", key, {}, files)
    return outputs.outputs


def _open_and_run(
    worker: Worker,
    artifact: Artifact,
    target: Target,
    program: Program,
    prepared: Prepared,
    folder: Path,
    measurement: Measurement,
) -> None:
    where = {"data": str(prepared.folder), "sources": [spec.to_json() for spec in prepared.sources]}
    opened = worker.call(
        f"{_OPERATIONS}:open_artifact", {"artifact": artifact.to_json(), "target": target.to_json(), **where}
    )
    memory, load_ms = opened["memory_bytes"], opened["load_ms"]
    measurement.memory_bytes = memory if isinstance(memory, int) else None
    measurement.load_ms = float(load_ms) if isinstance(load_ms, float | int) else None
    worker.call(f"{_OPERATIONS}:run_data", {**where, "out": str(folder)})
    files = {f"{i}.npy": folder / f"{i}.npy" for i in range(len(artifact.outputs))}
    outputs = _read_outputs(files, program.outputs)
    for own, spec in zip(artifact.outputs, program.outputs, strict=True):
        outputs[spec.name] = to_layout(outputs[spec.name], own.layout, spec.layout)
    measurement.outputs = outputs


def _read_outputs(files: Mapping[str, Path], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return source output name -> array; read whole, since the files go with the work folder."""
    return {spec.name: np.load(files[f"{i}.npy"], allow_pickle=False) for i, spec in enumerate(specs)}


def _layers(worker: Worker, target: Target, targets: Sequence[Target]) -> tuple[Layer, ...]:
    """Return the cost of each layer, once per artifact: at the least number of threads asked for."""
    least = min(t.threads for t in targets if t.artifact_id == target.artifact_id)
    if target.threads != least:
        return ()
    try:
        answer = worker.call(f"{_OPERATIONS}:layer_costs", {})
    except EdgewrightError:
        return ()  # a profiler that fails takes nothing away from what was measured
    records = answer["layers"]
    assert isinstance(records, list)
    return tuple(
        Layer(
            name=str(record["name"]),
            operator=str(record["operator"]),
            time_us=float(record["time_us"]),
            implementation=str(record["implementation"]),
        )
        for record in records
    )
