"""Run the source and every artifact over the data, each in a fresh worker, and time the artifacts together."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from edgewright.backends import registry
from edgewright.backends.conversion import Conversion
from edgewright.backends.reference import reference_environment
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import EdgewrightError
from edgewright.core.program import Program
from edgewright.core.progress import Progress
from edgewright.core.result import Layer
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, TensorSpec, to_layout
from edgewright.data.preparation import Prepared
from edgewright.measure.download import Downloads, download_sizes
from edgewright.measure.timing import Timing, TimingSettings, time_interleaved
from edgewright.workers.cache import Cache
from edgewright.workers.limits import limits_from_environment
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
    """The source's outputs, the measurement of each target by id, and what the artifacts take as a download.

    Attributes:
        is_timing_kept: the times are from an earlier build.
    """

    reference: dict[str, Array]
    targets: Mapping[str, Measurement]
    is_timing_kept: bool = False
    downloads: Downloads = field(default_factory=Downloads)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What the parts of one evaluation share."""

    program: Program
    prepared: Prepared
    artifacts: Mapping[str, Artifact]  # by name: the target's id, where one program is built
    targets: Mapping[str, Target]
    reference: dict[str, Array] | None  # the source's outputs, where they are known
    workdir: Path
    cache: Cache
    progress: Progress


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

    What nothing here runs is left out, and what only an interpreter of ours runs is never timed.
    Every other target gets a fresh process, in which it is opened (memory), run over the data (outputs) and then timed,
    all targets interleaved (`timing` None: not timed). Opening and running go side by side within the cores;
    timing goes alone. Outputs of an earlier build are used again. Times are used again only all together:
    two times from two runs must never be compared.

    Raises:
        EdgewrightError: the source itself cannot be run.
        DataError: the metric cannot be computed for the source's own outputs.
    """
    found = {target.id: conversions[target.artifact_id].artifact for target in targets}
    artifacts = {name: artifact for name, artifact in found.items() if artifact is not None}
    return evaluate_artifacts(
        program,
        artifacts,
        {target.id: target for target in targets},
        prepared,
        workdir=workdir,
        cache=cache,
        progress=progress,
        timing=timing,
    )


def evaluate_artifacts(
    program: Program,
    artifacts: Mapping[str, Artifact],
    targets: Mapping[str, Target],
    prepared: Prepared,
    *,
    workdir: Path,
    cache: Cache,
    progress: Progress,
    timing: TimingSettings | None = TimingSettings(),
    reference: dict[str, Array] | None = None,
) -> Measured:
    """Measure artifacts by name, of one program or of several with the same inputs and outputs; see `evaluate_all`.

    Args:
        program: whose names and layouts the outputs get.
        targets: how to run each artifact, by the same names.
        reference: the outputs of `program`, where they are known; else it is run.
    """
    downloads = download_sizes(artifacts.values(), cache=cache, progress=progress)
    artifacts = {
        name: artifact
        for name, artifact in artifacts.items()
        if artifact.proof in (Proof.RUN, Proof.INTERPRETED)
    }
    run = _Run(
        program=program,
        prepared=prepared,
        artifacts=artifacts,
        targets={name: targets[name] for name in artifacts},
        reference=reference,
        workdir=workdir,
        cache=cache,
        progress=progress,
    )
    measurements = {name: Measurement() for name in artifacts}
    key = _timing_key(run, timing)
    kept = cache.get("timing", key)
    if kept is not None and all(_kept_outputs(run, name, measurements[name]) for name in artifacts):
        for name, record in kept.record.items():
            assert isinstance(record, dict)
            _take_timing(measurements[name], record)
            progress(name, "time", "cached")
        with _Lazy("reference", reference_environment(program.format)) as worker:
            outputs = _reference(run, worker)
        return Measured(reference=outputs, targets=measurements, is_timing_kept=True, downloads=downloads)
    outputs = _evaluate(run, measurements, timing)
    timed = {name: m for name, m in measurements.items() if artifacts[name].proof is Proof.RUN}
    if timing is not None and all(m.timing is not None for m in timed.values()):
        cache.put("timing", key, {name: _timing_record(m) for name, m in timed.items()})
    return Measured(reference=outputs, targets=measurements, downloads=downloads)


def reference_outputs(
    program: Program, prepared: Prepared, *, workdir: Path, cache: Cache, progress: Progress
) -> dict[str, Array]:
    """Return the outputs of `program` on the data, output name -> [n, ...], run by its own framework in a worker.

    Raises:
        EdgewrightError: it cannot be run.
        DataError: the metric cannot be computed for its outputs.
    """
    run = _Run(
        program=program,
        prepared=prepared,
        artifacts={},
        targets={},
        reference=None,
        workdir=workdir,
        cache=cache,
        progress=progress,
    )
    with _Lazy("reference", reference_environment(program.format)) as worker:
        return _reference(run, worker)


def _evaluate(
    run: _Run, measurements: Mapping[str, Measurement], timing: TimingSettings | None
) -> dict[str, Array]:
    """Fill in `measurements`; return the source's outputs."""
    with ExitStack() as stack:
        source = stack.enter_context(_Lazy("reference", reference_environment(run.program.format)))
        workers: dict[str, Worker] = {
            name: stack.enter_context(_Lazy(name, run.artifacts[name].environment)) for name in run.targets
        }

        def evaluate(name: str) -> None:
            run.progress(name, "run", "running")
            try:
                _measure_outputs(run, name, workers[name], measurements[name])
                run.progress(name, "run", "done")
            except EdgewrightError as err:
                measurements[name].error = err
                run.progress(name, "run", "failed")

        with ThreadPoolExecutor(max_workers=max(os.cpu_count() or 1, 1)) as pool:
            try:
                of_source = pool.submit(_reference, run, source)  # first, since it takes longest
                done = pool.map(evaluate, workers)
                reference = of_source.result()
                for _ in done:
                    pass
            except BaseException:
                for worker in (source, *workers.values()):
                    worker.close()  # an interrupt must not wait for what still runs
                raise
        source.close()
        if timing is None:
            return reference
        sound = {
            name: worker
            for name, worker in workers.items()
            if measurements[name].error is None and run.artifacts[name].proof is Proof.RUN
        }
        outcomes = time_interleaved(sound, timing, lambda name, step: run.progress(name, step, "running"))
        for name, outcome in outcomes.items():
            if isinstance(outcome, Timing):
                measurements[name].timing = outcome
                measurements[name].layers = _layers(
                    workers[name], run.targets[name], list(run.targets.values())
                )
                run.progress(name, "time", "done")
            else:
                measurements[name].error = outcome
                run.progress(name, "time", "failed")
    return reference


def _outputs_key(run: _Run, name: str) -> str:
    artifact = run.artifacts[name]
    return run.cache.key(
        "outputs",
        {
            "artifact": artifact.sha256,
            "target": run.targets[name].to_json(),
            "toolchain": dict(artifact.toolchain),
            "data": run.prepared.dataset.sha256,
        },
    )


def _timing_key(run: _Run, timing: TimingSettings | None) -> str:
    return run.cache.key(
        "timing",
        {
            "outputs": {name: _outputs_key(run, name) for name in run.targets},
            "settings": None if timing is None else asdict(timing),
            "host": [platform.node(), platform.release(), platform.processor(), os.cpu_count()],
        },
    )


def _measure_outputs(run: _Run, name: str, worker: Worker, measurement: Measurement) -> None:
    """Open the artifact in `worker`, and take its outputs from an earlier build or from a run over the data."""
    artifact, target = run.artifacts[name], run.targets[name]
    _open(worker, artifact, target, run.prepared, measurement)
    if artifact.proof is Proof.INTERPRETED:
        measurement.memory_bytes = None  # the interpreter's memory says nothing of the runtime's
    if _kept_outputs(run, name, measurement):
        return
    folder = run.workdir / name
    measurement.outputs = _run_data(worker, artifact, run.program, run.prepared, folder)
    _keep(run.cache, "outputs", _outputs_key(run, name), folder, {"memory_bytes": measurement.memory_bytes})


def _kept_outputs(run: _Run, name: str, measurement: Measurement) -> bool:
    step = run.cache.get("outputs", _outputs_key(run, name))
    if step is None:
        return False
    if measurement.memory_bytes is None:
        memory = step.record["memory_bytes"]
        measurement.memory_bytes = memory if isinstance(memory, int) else None
    measurement.outputs = _outputs(step.files, run.artifacts[name], run.program)
    return True


def _timing_record(measurement: Measurement) -> dict[str, object]:
    assert measurement.timing is not None
    return {"timing": measurement.timing.to_json(), "layers": [asdict(layer) for layer in measurement.layers]}


def _take_timing(measurement: Measurement, record: Mapping[str, object]) -> None:
    timing, layers = record["timing"], record["layers"]
    assert isinstance(timing, dict)
    assert isinstance(layers, list)
    measurement.timing = Timing(**timing)
    measurement.layers = tuple(Layer(**layer) for layer in layers)


class _Lazy(Worker):
    """A worker that starts with its first call, not on entry: a machine with 24 targets starts them as it can."""

    def __init__(self, name: str, environment: str) -> None:
        super().__init__(name, limits=limits_from_environment(_LIMITS), environment=environment)

    def __enter__(self) -> _Lazy:
        return self


def _reference(run: _Run, worker: Worker) -> dict[str, Array]:
    """Return the outputs of the untouched source, run by its own framework in `worker`."""
    if run.reference is not None:
        return run.reference
    program, folder = run.program, run.workdir / "reference"
    run.progress("source", "run", "running")
    support = registry.get("reference").probe()
    key = run.cache.key(
        "reference",
        {"program": program.sha256, "data": run.prepared.dataset.sha256, "versions": support.versions},
    )
    step = run.cache.get("reference", key)
    if step is not None:
        outputs = _read_outputs(step.files, program.outputs)
    else:
        target = Target(runtime="reference", precision=Precision.FP32, threads=max(os.cpu_count() or 1, 1))
        request = {
            "program": program.to_json(),
            "target": target.to_json(),
            "calibration": None,
            "workdir": str(folder),
        }
        record = worker.call("edgewright.backends.operations:convert", request)["artifact"]
        assert isinstance(record, dict)
        artifact = Artifact.from_json(record)
        _open(worker, artifact, target, run.prepared, Measurement())
        outputs = _run_data(worker, artifact, program, run.prepared, folder / "outputs")
        _keep(run.cache, "reference", key, folder / "outputs", {})
    metric = run.prepared.metric
    if metric is not None:  # labels that do not fit the source are the user's to mend, not a target's fault
        metric.score(outputs, run.prepared.dataset.labels, outputs)
    run.progress("source", "run", "done")
    return outputs


def _keep(cache: Cache, kind: str, key: str, folder: Path, record: Mapping[str, object]) -> None:
    files = sorted(folder.glob("*.npy"))
    if sum(file.stat().st_size for file in files) <= _MAX_CACHED_OUTPUT_BYTES:
        cache.put(kind, key, record, files)


def _where(prepared: Prepared) -> dict[str, object]:
    return {"data": str(prepared.folder), "sources": [spec.to_json() for spec in prepared.sources]}


def _open(
    worker: Worker, artifact: Artifact, target: Target, prepared: Prepared, measurement: Measurement
) -> None:
    opened = worker.call(
        f"{_OPERATIONS}:open_artifact",
        {"artifact": artifact.to_json(), "target": target.to_json(), **_where(prepared)},
    )
    memory, load_ms = opened["memory_bytes"], opened["load_ms"]
    measurement.memory_bytes = memory if isinstance(memory, int) else None
    measurement.load_ms = float(load_ms) if isinstance(load_ms, float | int) else None


def _run_data(
    worker: Worker, artifact: Artifact, program: Program, prepared: Prepared, folder: Path
) -> dict[str, Array]:
    worker.call(f"{_OPERATIONS}:run_data", {**_where(prepared), "out": str(folder)})
    return _outputs(
        {f"{i}.npy": folder / f"{i}.npy" for i in range(len(artifact.outputs))}, artifact, program
    )


def _outputs(files: Mapping[str, Path], artifact: Artifact, program: Program) -> dict[str, Array]:
    """Return source output name -> [n, ...] in the source's layout."""
    outputs = _read_outputs(files, program.outputs)
    for own, spec in zip(artifact.outputs, program.outputs, strict=True):
        outputs[spec.name] = to_layout(outputs[spec.name], own.layout, spec.layout)
    return outputs


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
