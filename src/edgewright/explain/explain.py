"""Foretell what each runtime makes of a model: read it once, cross our own bridges, and look into the tables."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.backends import registry
from edgewright.bridges.registry import route
from edgewright.core.contracts import Backend, Bridge
from edgewright.core.errors import EdgewrightError, UnavailableError, UnknownNameError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.explain.coverage import CostlyLayer, Coverage, Explanation, OperatorCoverage, Verdict
from edgewright.explain.findings import Finding, blocked
from edgewright.explain.graph import Graph, Operation
from edgewright.explain.operations import READERS
from edgewright.explain.rewrites import rewrite_for
from edgewright.explain.rules import Judgement, judge, refusal_of_signature
from edgewright.workers.pool import Limits, Worker

_LIMITS = Limits(timeout_s=600.0)
_READ = "edgewright.explain.operations:read"
_LISTED_LAYERS = 5
_COSTLY = 8
_NOT_JUDGED = ("reference",)  # it runs the source itself


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How one runtime is reached; `problem` says why it is not."""

    backend: Backend | None
    bridges: tuple[Bridge, ...] = ()
    problem: str = ""


def explain(program: Program, runtimes: Sequence[str] = (), *, worker: Worker | None = None) -> Explanation:
    """Return what each of `runtimes` (default: all that are registered) would make of `program`, in its own precision.

    Neither a converter nor a runtime is run. Where a runtime needs another format, Edgewright's own bridges are
    crossed, which tells exactly what is written for it; bridges of foreign toolchains are not crossed.

    Args:
        worker: to read the model in; by default one of its own.
    Raises:
        UnknownNameError: a runtime that nobody registers.
        IntegrityError, FormatMismatchError: the model is broken.
    """
    names = list(dict.fromkeys(runtimes)) or [name for name in registry.names() if name not in _NOT_JUDGED]
    plans = {name: _plan(name, program) for name in names}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as workdir:
        arguments: dict[str, object] = {
            "program": program.to_json(),
            "bridges": _own_routes(plans.values()),
            "workdir": workdir,
        }
        if worker is None:
            with Worker("explain", limits=_LIMITS) as own:
                answer = own.call(_READ, arguments)
        else:
            answer = worker.call(_READ, arguments)
    read, made, refused = answer["graphs"], answer["programs"], answer["refusals"]
    assert isinstance(read, dict)
    assert isinstance(made, dict)
    assert isinstance(refused, dict)
    graphs = {name: Graph.from_json(record) for name, record in read.items()}
    programs = {name: Program.from_json(record) for name, record in made.items()}
    coverages = tuple(
        _coverage(name, plan, program, graphs, programs, refused) for name, plan in plans.items()
    )
    return _explanation(program, graphs.get(program.format), coverages)


def _plan(name: str, program: Program) -> _Plan:
    backend: Backend | None = None
    try:
        backend = registry.get(name)
        support = backend.probe()
        if not support.is_available:
            return _Plan(backend=backend, problem=support.reason)
        return _Plan(backend=backend, bridges=tuple(route(program.format, backend.consumes, runtime=name)))
    except UnknownNameError:
        raise
    except EdgewrightError as err:
        return _Plan(backend=backend, problem=str(err))


def _own_routes(plans: Iterable[_Plan]) -> list[list[str]]:
    """Return the routes to cross: those of our own bridges, up to the first format that is read."""
    routes: list[list[str]] = []
    for plan in plans:
        names: list[str] = []
        for bridge in plan.bridges:
            if bridge.environment or bridge.writes not in READERS:
                break
            names.append(bridge.name)
        if names and names not in routes:
            routes.append(names)
    return routes


def _coverage(
    name: str,
    plan: _Plan,
    source: Program,
    graphs: dict[str, Graph],
    programs: dict[str, Program],
    refused: dict[str, str],
) -> Coverage:
    steps = (source.format, *(bridge.writes for bridge in plan.bridges))
    if plan.problem or plan.backend is None:
        return Coverage(runtime=name, verdict=Verdict.BLOCKED, route=steps, reason=plan.problem)
    for step in steps:
        if step in refused:
            return Coverage(
                runtime=name,
                verdict=Verdict.BLOCKED,
                route=steps,
                reason=refused[step],
                operators=_named_in(refused[step], graphs.get(source.format)),
            )
    # The last format on the route that was read stands for what comes after it.
    last = next(step for step in reversed(steps) if step in graphs or step == source.format)
    program = programs.get(steps[-1])
    refusal = None if program is None else plan.backend.refuses(program, _target(name, program))
    if refusal is not None:
        return Coverage(runtime=name, verdict=Verdict.BLOCKED, route=steps, reason=refusal)
    refusal = refusal_of_signature(name, graphs[last], source.precision) if last in graphs else ""
    if refusal:
        return Coverage(runtime=name, verdict=Verdict.BLOCKED, route=steps, reason=refusal)
    judgement = judge(name, graphs[last]) if last in graphs else None
    if judgement is None:
        return Coverage(
            runtime=name,
            verdict=Verdict.UNKNOWN,
            route=steps,
            reason=_why_unknown(name, steps, last),
        )
    return _judged(name, steps, graphs[last], judgement, _refused_precisions(plan.backend, programs, steps))


def _why_unknown(name: str, steps: Sequence[str], last: str) -> str:
    if last in READERS:
        return f"there is no table of what {name} makes of {last}"
    if len(steps) == 1:
        return f"the operators of {last} are not read here"
    following = steps[steps.index(last) + 1]
    return (
        f"the step {last} > {following} is made by a foreign toolchain, which is not run here; "
        "convert the model for litert first, and explain the .tflite"
    )


def _named_in(refusal: str, graph: Graph | None) -> tuple[OperatorCoverage, ...]:
    """Return the operators of the source that the refusal of a bridge names."""
    if graph is None:
        return ()
    words = set(re.findall(r"[\w.]+", refusal))
    named = [operation for operation in graph.operations if operation.operator in words]
    finding = blocked("the bridge on the way cannot write it")
    part = replace(graph, operations=tuple(named))
    return _operators(part, [finding] * len(named))


def _target(name: str, program: Program) -> Target:
    """Return the target that keeps the precision that is already in the file."""
    return Target(runtime=name, precision=Precision.parse(program.precision))


def _refused_precisions(
    backend: Backend, programs: dict[str, Program], steps: Sequence[str]
) -> tuple[str, ...]:
    program = programs.get(steps[-1])
    if program is None:
        return ()
    notes = []
    for precision in backend.precisions:
        try:
            reason = backend.refuses(program, replace(Target(runtime=backend.name), precision=precision))
        except UnavailableError as err:
            reason = str(err)
        if reason is not None:
            notes.append(f"{precision} is refused: {reason}")
    return tuple(notes)


def _judged(
    name: str, steps: tuple[str, ...], graph: Graph, judgement: Judgement, notes: tuple[str, ...]
) -> Coverage:
    operators = _operators(graph, judgement.findings)
    verdicts = {finding.verdict for finding in judgement.findings}
    verdict = next(
        (v for v in (Verdict.BLOCKED, Verdict.UNKNOWN, Verdict.FALLBACK) if v in verdicts), Verdict.OK
    )
    worst = [entry for entry in operators if entry.verdict is verdict and verdict is not Verdict.OK]
    total = sum(operation.macs or 0 for operation in graph.operations)
    taken = sum(
        operation.macs or 0
        for operation, inside in zip(graph.operations, judgement.is_accelerated, strict=False)
        if inside
    )
    return Coverage(
        runtime=name,
        verdict=verdict,
        route=steps,
        operators=operators,
        reason="; ".join(f"{entry.operator}: {entry.reason}" for entry in worst),
        accelerator=judgement.accelerator,
        partitions=judgement.partitions,
        accelerated_macs_share=taken / total if judgement.accelerator and total else None,
        toolchain=judgement.toolchain,
        notes=notes,
    )


def _operators(graph: Graph, findings: Sequence[Finding]) -> tuple[OperatorCoverage, ...]:
    """Return one record per operator, verdict and reason; the worst first, then the most frequent."""
    groups: dict[tuple[str, Finding], list[Operation]] = {}
    for operation, finding in zip(graph.operations, findings, strict=True):
        groups.setdefault((operation.operator, finding), []).append(operation)
    macs = [operation.macs for operation in graph.operations]
    total_macs = sum(count or 0 for count in macs) if None not in macs else 0
    total_parameters = sum(operation.parameters for operation in graph.operations)
    order = (Verdict.BLOCKED, Verdict.UNKNOWN, Verdict.FALLBACK, Verdict.OK)
    records = [
        OperatorCoverage(
            operator=operator,
            count=len(members),
            verdict=finding.verdict,
            reason=finding.reason,
            rewrite=rewrite_for(members[0], finding),
            layers=tuple(operation.name for operation in members[:_LISTED_LAYERS]),
            macs_share=_share(sum(operation.macs or 0 for operation in members), total_macs),
            parameters_share=_share(sum(operation.parameters for operation in members), total_parameters),
        )
        for (operator, finding), members in groups.items()
    ]
    return tuple(
        sorted(records, key=lambda entry: (order.index(entry.verdict), -entry.count, entry.operator))
    )


def _share(part: int, total: int) -> float | None:
    return part / total if total else None


def _explanation(program: Program, graph: Graph | None, coverages: tuple[Coverage, ...]) -> Explanation:
    operations = graph.operations if graph is not None else ()
    known = [operation.macs for operation in operations if operation.macs is not None]
    total_macs = sum(known) if operations and len(known) == len(operations) else None
    total_parameters = sum(operation.parameters for operation in operations)
    costly = sorted(operations, key=lambda operation: (-(operation.macs or 0), -operation.parameters))
    return Explanation(
        model=Path(program.origin).name,
        format=program.format,
        sha256=program.sha256,
        parameters=total_parameters,
        macs=total_macs,
        coverages=coverages,
        layers=tuple(
            CostlyLayer(
                name=operation.name,
                operator=operation.operator,
                macs=operation.macs,
                parameters=operation.parameters,
                macs_share=_share(operation.macs or 0, total_macs or 0),
                parameters_share=_share(operation.parameters, total_parameters),
            )
            for operation in costly[:_COSTLY]
            if operation.macs or operation.parameters
        ),
    )
