"""What a measuring worker does: open a model, run it over data, time it, tell the cost of its layers.

These functions run in a worker process. An opened session stays there between the requests.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.backends import registry
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Session
from edgewright.core.errors import DataError, UsageError, WorkerError
from edgewright.core.program import specs_from_json
from edgewright.core.target import Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, to_layout
from edgewright.measure.energy import EnergyCounter
from edgewright.measure.memory import peak_bytes, reset_peak

_ROTATED_INPUTS = 16
_CHUNK = 32
_MAX_OUTPUT_BYTES = 4 << 30


class _Opened:
    """The session of this process, its rotated inputs and its artifact."""

    def __init__(
        self, session: Session, artifact: Artifact, target: Target, batches: Sequence[Arrays]
    ) -> None:
        self.session = session
        self.artifact = artifact
        self.target = target
        self.batches = batches
        self.position = 0


_opened: dict[str, _Opened] = {}


def open_artifact(arguments: dict[str, object]) -> dict[str, object]:
    """Open an artifact and run it a few times; return the memory that this took.

    Arguments: artifact, target (records), data (folder of <position>.npy), sources (specs of the data).
    Result: memory_bytes or null, load_ms.
    """
    artifact, target = (
        Artifact.from_json(_object(arguments, "artifact")),
        Target.from_json(_object(arguments, "target")),
    )
    artifact.verify_digest()
    backend = registry.get(target.runtime)
    if backend.runtime_module:
        importlib.import_module(backend.runtime_module)
    arrays = load_data(Path(str(arguments["data"])), artifact.inputs)
    sources = specs_from_json(arguments["sources"])
    count = len(arrays[0]) if arrays else 1
    chosen = np.linspace(0, count - 1, num=min(count, _ROTATED_INPUTS)).astype(int)
    batches = [batch_of(arrays, sources, artifact.inputs, int(i), int(i) + 1) for i in chosen]
    can_measure = reset_peak()
    before = peak_bytes()
    start = time.perf_counter()
    session = backend.open(artifact, target)
    load_ms = (time.perf_counter() - start) * 1e3
    for batch in batches[:3]:
        session.run(batch)
    after = peak_bytes()
    hold_session(session, artifact, target, batches)
    memory = max(after - before, 0) if can_measure and before is not None and after is not None else None
    return {"memory_bytes": memory, "load_ms": load_ms}


def hold_session(session: Session, artifact: Artifact, target: Target, batches: Sequence[Arrays]) -> None:
    """Keep a session for the requests that follow; `time_block` gives it one of `batches` after another."""
    _opened["model"] = _Opened(session, artifact, target, batches)


def held_session() -> Session:
    """Return the session that is open in this process."""
    return _model().session


def run_data(arguments: dict[str, object]) -> dict[str, object]:
    """Run the opened model over all data; write output i to <out>/<i>.npy, sample axis first.

    Arguments: data, sources (as in `open_artifact`), out (folder).
    Raises:
        DataError: the outputs differ in shape from sample to sample.
    """
    opened = _model()
    session, artifact = opened.session, opened.artifact
    sources = specs_from_json(arguments["sources"])
    arrays = load_data(Path(str(arguments["data"])), artifact.inputs)
    out = Path(str(arguments["out"]))
    out.mkdir(parents=True, exist_ok=True)
    count = len(arrays[0])
    can_chunk = all(spec.has_dynamic_batch for spec in (*artifact.inputs, *artifact.outputs))
    step = _CHUNK if can_chunk else 1
    stores: list[np.memmap[tuple[int, ...], np.dtype[np.generic]]] = []
    for start in range(0, count, step):
        stop = min(start + step, count)
        results = session.run(batch_of(arrays, sources, artifact.inputs, start, stop))
        outputs = [np.asarray(results[spec.name]) for spec in artifact.outputs]
        if not stores:
            stores = [
                _store(out / f"{i}.npy", _sample_shape(o, spec, stop - start), o.dtype, count)
                for i, (o, spec) in enumerate(zip(outputs, artifact.outputs, strict=True))
            ]
        for store, output, spec in zip(stores, outputs, artifact.outputs, strict=True):
            if _sample_shape(output, spec, stop - start) != store.shape[1:]:
                raise DataError(
                    f"output {spec.name!r} has shape {list(output.shape)} for sample {start}, but "
                    f"{list(store.shape[1:])} before: outputs whose shape depends on the data cannot be compared."
                )
            store[start:stop] = output.reshape(stop - start, *store.shape[1:])
    for store in stores:
        store.flush()
    return {"count": count, "outputs": len(stores)}


def run_once(arguments: dict[str, object]) -> dict[str, object]:
    """Run an artifact on one batch as given.

    Arguments: artifact, inputs (name -> .npy file), out (folder).
    Result: outputs (name -> .npy file).
    """
    artifact = Artifact.from_json(_object(arguments, "artifact"))
    artifact.verify_digest()
    session = registry.get(artifact.target.runtime).open(artifact, artifact.target)
    inputs = {
        name: np.load(str(path), allow_pickle=False) for name, path in _object(arguments, "inputs").items()
    }
    out = Path(str(arguments["out"]))
    out.mkdir(parents=True)
    files: dict[str, str] = {}
    for index, (name, value) in enumerate(session.run(inputs).items()):
        np.save(out / f"{index}.npy", np.asarray(value), allow_pickle=False)
        files[name] = str(out / f"{index}.npy")
    session.close()
    return {"outputs": files}


def time_block(arguments: dict[str, object]) -> dict[str, object]:
    """Time consecutive inferences, one sample each, inputs rotated.

    Arguments: count (inferences), or budget_ns (as many as fit, at least `count`).
    Result: wall_ns, cpu_ns (lists, one entry per inference), energy_mj or null for the whole block.
    """
    opened = _model()
    run, batches = opened.session.run, opened.batches
    least, budget_ns = int(str(arguments["count"])), int(str(arguments.get("budget_ns", 0)))
    wall: list[int] = []
    cpu: list[int] = []
    counter = EnergyCounter.find()
    energy_before = counter.read_uj() if counter else None
    deadline = time.perf_counter_ns() + budget_ns
    while len(wall) < least or time.perf_counter_ns() < deadline:
        batch = batches[opened.position % len(batches)]
        opened.position += 1
        cpu_start = time.process_time_ns()
        start = time.perf_counter_ns()
        run(batch)
        stop = time.perf_counter_ns()
        cpu_stop = time.process_time_ns()
        wall.append(stop - start)
        cpu.append(cpu_stop - cpu_start)
    energy = None
    if counter is not None and energy_before is not None:
        energy = counter.difference_mj(energy_before, counter.read_uj())
    return {"wall_ns": wall, "cpu_ns": cpu, "energy_mj": energy}


def pin_to_core(arguments: dict[str, object]) -> dict[str, object]:
    """Keep this process, and the threads that it starts from now on, on one core.

    Arguments: core (number of the core). Result: is_pinned, False where the system cannot.
    """
    if not hasattr(os, "sched_setaffinity"):
        return {"is_pinned": False}
    os.sched_setaffinity(0, {int(str(arguments["core"]))})
    return {"is_pinned": True}


def layer_costs(arguments: dict[str, object]) -> dict[str, object]:
    """Open the model again with the runtime's profiler on and return the cost of each layer."""
    opened = _model()
    session = registry.get(opened.target.runtime).open(opened.artifact, opened.target, profile=True)
    try:
        costs = session.layers(opened.batches[0])
    finally:
        session.close()
    return {
        "layers": [
            {"name": c.name, "operator": c.operator, "time_us": c.time_us, "implementation": c.implementation}
            for c in costs
        ]
    }


def close_artifact(arguments: dict[str, object]) -> dict[str, object]:
    """Close the opened model."""
    opened = _opened.pop("model", None)
    if opened is not None:
        opened.session.close()
    return {}


def _model() -> _Opened:
    opened = _opened.get("model")
    if opened is None:
        raise WorkerError("no model is open in this worker: it crashed and was started again.")
    return opened


def _object(arguments: dict[str, object], name: str) -> dict[str, object]:
    value = arguments[name]
    assert isinstance(value, dict)
    return value


def load_data(folder: Path, specs: tuple[TensorSpec, ...]) -> list[Array]:
    return [np.load(folder / f"{i}.npy", mmap_mode="r", allow_pickle=False) for i in range(len(specs))]


def batch_of(
    arrays: list[Array], sources: tuple[TensorSpec, ...], specs: tuple[TensorSpec, ...], start: int, stop: int
) -> dict[str, Array]:
    """Return samples start..stop as the artifact takes them; see the data conventions in docs/ARCHITECTURE.md."""
    batch: dict[str, Array] = {}
    for array, source, spec in zip(arrays, sources, specs, strict=True):
        part = np.ascontiguousarray(array[start:stop])
        if part.ndim == len(spec.shape) + 1:
            part = part[
                0, ...
            ]  # the sample is the whole tensor: a state, a fixed batch, a scalar (kept an array)
        batch[spec.name] = to_layout(part, source.layout, spec.layout)
    return batch


def _sample_shape(output: Array, spec: TensorSpec, samples: int) -> tuple[int, ...]:
    """Return the shape of one sample of an output: without the batch axis where there is one."""
    if output.ndim and output.shape[0] == samples:
        return output.shape[1:]
    if samples == 1:
        return output.shape
    raise DataError(
        f"output {spec.name!r} has shape {list(output.shape)} for {samples} samples: its first axis is not the batch."
    )


def _store(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], count: int
) -> np.memmap[tuple[int, ...], np.dtype[np.generic]]:
    if count * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize > _MAX_OUTPUT_BYTES:
        raise DataError(
            f"{count} outputs of shape {list(shape)} take more than {_MAX_OUTPUT_BYTES} bytes. Give fewer samples."
        )
    store: np.memmap[tuple[int, ...], np.dtype[np.generic]] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path, mode="w+", dtype=dtype, shape=(count, *shape)
    )
    if store.size:
        # A mapped file is sparse: on a full disk a later write would end the process with SIGBUS.
        with path.open("r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as err:
                raise UsageError(
                    f"the {path.stat().st_size} bytes of an output do not fit into the folder for temporary files: "
                    f"{err.strerror}. Free space there, or point TMPDIR elsewhere."
                ) from err
    return store
