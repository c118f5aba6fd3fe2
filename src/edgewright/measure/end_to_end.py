"""A model between its pre- and post-processing in C, opened in a worker to be timed as an app runs it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.backends import registry
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import LayerCost, Session
from edgewright.core.program import specs_from_json
from edgewright.core.target import Target
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.measure.operations import held_session, hold_session
from edgewright.processing.c_code import write_core
from edgewright.processing.c_host import CProcessor, build_library
from edgewright.processing.processor import Plan, Processor, Signature, plan
from edgewright.processing.specification import read_specification, write_specification
from edgewright.workers.pool import Worker

_NAME = "bench"
_SOURCES = "core"
_LIBRARY = f"lib{_NAME}.so"
_KEPT_RUNS = 100_000


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where the time of one end-to-end run goes: medians in milliseconds, which need not add up to the median of all.

    Attributes:
        before: setting the raw inputs, and making tensors of them.
        model: the runtime's.
        behind: making results of the outputs, and reading them.
    """

    before: float
    model: float
    behind: float


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltProcessing:
    """A processing of one model in C, built once for every process that runs it, and raw inputs for it.

    Attributes:
        checked: with every size known.
        folder: holds the sources, the library, the specification and the inputs.
        inputs: how many sets of raw inputs there are.
        tensors: what the processing makes of each set, constants and the states of a stream's beginning included.
        description: what they are.
    """

    checked: Plan
    folder: Path
    inputs: int
    tensors: tuple[Arrays, ...]
    description: str


def build_processing(
    checked: Plan, raws: Sequence[Mapping[str, Array]], folder: Path, *, description: str
) -> BuiltProcessing:
    """Build `checked` in C under `folder`, with the raw inputs that are run in turns.

    Raises:
        UnavailableError: there is no C compiler.
        ConversionError: a step has no C, or a size of the model is open.
    """
    core = write_core(checked, folder / _SOURCES, _NAME)
    build_library(core, folder / _LIBRARY)
    write_specification(checked.specification, folder)
    for number, raw in enumerate(raws):
        for index, row in enumerate(checked.specification.inputs):
            np.save(folder / f"{number}_{index}.npy", raw[row.name], allow_pickle=False)
    processor = Processor(checked)
    tensors = tuple(processor.prepare(raw) for raw in raws)
    return BuiltProcessing(
        checked=checked, folder=folder, inputs=len(raws), tensors=tensors, description=description
    )


def open_around(worker: Worker, artifact: Artifact, built: BuiltProcessing) -> int | None:
    """Open `artifact` within `built` in `worker`, where `time_block` then times both; return None for the memory.

    Raises:
        EdgewrightError: the runtime or the processing refuses.
    """
    signature = built.checked.signatures[""]
    worker.call(
        "edgewright.measure.end_to_end:open_processed",
        {
            "artifact": artifact.to_json(),
            "target": artifact.target.to_json(),
            "folder": str(built.folder),
            "inputs": [spec.to_json() for spec in signature.inputs],
            "outputs": [spec.to_json() for spec in signature.outputs],
            "count": built.inputs,
        },
    )
    return None


def open_processed(arguments: dict[str, object]) -> dict[str, object]:
    """Open an artifact within its processing, and run both once for each set of raw inputs.

    Arguments: artifact, target (records), folder (of `BuiltProcessing`), inputs, outputs (specs of the model,
        every size known), count (of the sets of raw inputs).
    """
    folder = Path(str(arguments["folder"]))
    artifact = Artifact.from_json(_record(arguments["artifact"]))
    target = Target.from_json(_record(arguments["target"]))
    artifact.verify_digest()
    signature = Signature(
        inputs=specs_from_json(arguments["inputs"]), outputs=specs_from_json(arguments["outputs"])
    )
    checked = plan(read_specification(folder), signature)
    processor = CProcessor(checked, folder / _SOURCES, name=_NAME, library=folder / _LIBRARY)
    session = _Processed(registry.get(target.runtime).open(artifact, target), processor)
    names = [row.name for row in checked.specification.inputs]
    raws = [
        {
            name: np.load(folder / f"{number}_{index}.npy", allow_pickle=False)
            for index, name in enumerate(names)
        }
        for number in range(int(str(arguments["count"])))
    ]
    for raw in raws:
        session.run(raw)
    hold_session(session, artifact, target, raws)
    return {}


def stage_times(arguments: dict[str, object]) -> dict[str, object]:
    """Return where the time of the last runs of the opened session went.

    Arguments: count (runs, the last ones).
    Result: stages (a row each run: nanoseconds before the model, of the model, behind it).
    """
    session = held_session()
    assert isinstance(session, _Processed)
    return {"stages": [list(row) for row in list(session.stages)[-int(str(arguments["count"])) :]]}


def read_stages(worker: Worker, count: int) -> list[tuple[int, int, int]]:
    """Return, for the last `count` runs of what `open_around` opened in `worker`, the nanoseconds of each stage."""
    rows = worker.call("edgewright.measure.end_to_end:stage_times", {"count": count})["stages"]
    assert isinstance(rows, list)
    return [(int(before), int(model), int(behind)) for before, model, behind in rows]


def summarise_stages(rows: Sequence[tuple[int, int, int]]) -> Stages:
    """Return the medians of `rows`, as `read_stages` gives them."""
    before, model, behind = np.median(np.asarray(rows), axis=0) / 1e6
    return Stages(before=float(before), model=float(model), behind=float(behind))


class _Processed:
    """A session that takes raw inputs and gives results: what an app calls for one frame.

    Attributes:
        stages: of the last runs, nanoseconds before the model, of the model, behind it.
    """

    def __init__(self, session: Session, processor: CProcessor) -> None:
        self._session, self._processor = session, processor
        self.stages: deque[tuple[int, int, int]] = deque(maxlen=_KEPT_RUNS)
        ends = processor.core.program.models[0].inputs
        self._tensors = {end.spec.name: processor.tensor(0, index) for index, end in enumerate(ends)}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._session.outputs

    def run(self, inputs: Arrays) -> Arrays:
        begin = time.perf_counter_ns()
        self._processor.set_inputs(inputs)
        self._processor.compute()
        prepared = time.perf_counter_ns()
        outputs = self._session.run(self._tensors)
        inferred = time.perf_counter_ns()
        self._processor.finish(0, outputs)
        results = self._processor.results()
        end = time.perf_counter_ns()
        self.stages.append((prepared - begin, inferred - prepared, end - inferred))
        return results

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        return ()

    def close(self) -> None:
        self._session.close()


def _record(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
