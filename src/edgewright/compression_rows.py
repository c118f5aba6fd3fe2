"""Every step's artifact on every runtime, measured beside the original's: sizes, accuracy, latency, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.backends.conversion import Conversion, convert_all
from edgewright.compression_recipe import ENTROPY
from edgewright.compression_steps import Stage
from edgewright.core.artifact import Artifact
from edgewright.core.compression import Cell, Row, step_id
from edgewright.core.errors import UnknownNameError
from edgewright.core.program import Program
from edgewright.core.progress import Progress
from edgewright.core.result import Result
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, to_layout
from edgewright.data.preparation import Prepared
from edgewright.measure.evaluation import evaluate_artifacts, reference_outputs
from edgewright.measure.judgement import judge_step
from edgewright.workers.cache import Cache
from edgewright.workers.limits import limits_from_environment
from edgewright.workers.pool import Limits, Worker

_PACK = "edgewright.compress.entropy:pack_artifact"
_PACK_LIMITS = Limits(timeout_s=1800.0, memory_bytes=16 << 30)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the measurement of all steps shares."""

    source: Program  # as the user gave it, in its own format
    runtimes: tuple[str, ...]
    threads: int
    prepared: Prepared
    workdir: Path
    cache: Cache
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Built:
    """A stage on each runtime: its targets and conversions by runtime."""

    stage: Stage
    targets: dict[str, Target]
    conversions: dict[str, Conversion]


def build_stages(stages: Sequence[Stage], bench: Bench) -> list[Built]:
    """Convert every stage's program for every runtime, in the precision that it has; the original from its own file."""
    return [_build(stage, bench) for stage in stages]


def measure_stages(built: Sequence[Built], bench: Bench) -> list[Row]:
    """Return one row per stage and runtime, in the order of stages; a runtime's artifacts are timed in one session."""
    source = reference_outputs(
        bench.source,
        bench.prepared,
        workdir=bench.workdir / "source",
        cache=bench.cache,
        progress=bench.progress,
    )
    own = {one.stage.record.id: _own_outputs(one.stage, source, bench) for one in built}
    found: dict[tuple[str, str], Result] = {}
    for runtime in bench.runtimes:
        found |= _measure_runtime(runtime, built, source, own, bench)
    rows = []
    for one in built:
        for runtime in bench.runtimes:
            result = found[one.stage.record.id, runtime]
            first = found[built[0].stage.record.id, runtime]
            rows.append(
                Row(
                    step=one.stage.record.id,
                    runtime=runtime,
                    result=replace(result, speed_up=_ratio(first, result)),
                    download_bytes=result.size_bytes,
                )
            )
    return rows


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The step that packs: its rows, and runtime -> what each range of weights takes."""

    rows: list[Row]
    tables: dict[str, list[dict[str, Cell]]]


def pack_rows(rows: Sequence[Row], last: Built, number: int, out: Path, progress: Progress) -> Packed:
    """Pack the artifacts of `last` into `out/artifacts/<artifact id>.ewz`, each in a worker, and check what comes out.

    A row of this step is that of the artifact, whose files are the same, with another download.

    Raises:
        EdgewrightError: one cannot be packed.
    """
    name = step_id(number, ENTROPY)
    packed = Packed(rows=[], tables={})
    with Worker("pack", limits=limits_from_environment(_PACK_LIMITS)) as worker:
        for row in rows:
            if row.step != last.stage.record.id:
                continue
            made = replace(row, step=name, result=replace(row.result, id=f"{name}.{row.runtime}"))
            artifact = last.conversions[row.runtime].artifact
            if artifact is not None:
                progress(name, f"pack {row.runtime}", "running")
                path = out / "artifacts" / f"{last.targets[row.runtime].artifact_id}.ewz"
                answer = worker.call(_PACK, {"artifact": artifact.to_json(), "out": str(path)})
                made = replace(made, download_bytes=int(str(answer["packed_bytes"])), is_packed=True)
                table = answer["rows"]
                assert isinstance(table, list)
                packed.tables[f"Weights in {path.name}"] = table
            packed.rows.append(made)
    progress(name, "compress", "done")
    return packed


def _build(stage: Stage, bench: Bench) -> Built:
    name = stage.record.id
    program = bench.source if stage.record.number == 0 else stage.program
    targets = {
        runtime: Target(runtime=runtime, precision=_precision(program), threads=bench.threads)
        for runtime in bench.runtimes
    }

    def progress(target_id: str, step: str, state: str, /) -> None:
        bench.progress(f"{name}/{target_id}", step, state)

    made = convert_all(
        program,
        list(targets.values()),
        None,
        workdir=bench.workdir / "convert" / name,
        cache=bench.cache,
        progress=progress,
    )
    conversions = {runtime: made[target.artifact_id] for runtime, target in targets.items()}
    return Built(stage=stage, targets=targets, conversions=conversions)


def _precision(program: Program) -> Precision:
    try:
        return Precision.parse(program.precision)
    except UnknownNameError:  # a mix of precisions: the runtimes say whether they make it
        return Precision.W8A8


def _own_outputs(stage: Stage, source: dict[str, Array], bench: Bench) -> dict[str, Array]:
    """Return the outputs of the stage's own program, under the names of the source's."""
    if stage.record.number == 0:
        return source
    outputs = reference_outputs(
        stage.program,
        bench.prepared,
        workdir=bench.workdir / "own" / stage.record.id,
        cache=bench.cache,
        progress=lambda name, step, state: bench.progress(stage.record.id, "run the model", state),
    )
    pairs = zip(stage.program.outputs, bench.source.outputs, strict=True)
    return {spec.name: to_layout(outputs[own.name], own.layout, spec.layout) for own, spec in pairs}


def _measure_runtime(
    runtime: str,
    built: Sequence[Built],
    source: dict[str, Array],
    own: dict[str, dict[str, Array]],
    bench: Bench,
) -> dict[tuple[str, str], Result]:
    artifacts: dict[str, Artifact] = {}
    for one in built:
        artifact = one.conversions[runtime].artifact
        if artifact is not None:
            artifacts[_name(one, runtime)] = artifact
    measured = evaluate_artifacts(
        bench.source,
        artifacts,
        {_name(one, runtime): one.targets[runtime] for one in built},
        bench.prepared,
        workdir=bench.workdir / "measure" / runtime.replace(":", "."),
        cache=bench.cache,
        progress=bench.progress,
        reference=source,
    )
    return {
        (one.stage.record.id, runtime): judge_step(
            _name(one, runtime),
            one.targets[runtime],
            one.conversions[runtime],
            measured,
            own[one.stage.record.id],
            bench.prepared,
        )
        for one in built
    }


def _name(one: Built, runtime: str) -> str:
    return f"{one.stage.record.id}.{runtime}"


def _ratio(first: Result, result: Result) -> float | None:
    if first.latency_ms is None or result.latency_ms is None:
        return None
    return first.latency_ms.p50 / result.latency_ms.p50
