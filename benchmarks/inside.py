"""A worker operation that splits a call of a session into the runtime's own time and the rest."""

from __future__ import annotations

import statistics
import time

from edgewright.backends.litert import LiteRTSession
from edgewright.backends.openvino import OpenVINOSession
from edgewright.core.errors import UsageError
from edgewright.measure import operations


def time_parts(arguments: dict[str, object]) -> dict[str, object]:
    """Return the medians, in us, of the opened session's call and of the runtime's part of it.

    LiteRT: `invoke` alone, without copying inputs and outputs. OpenVINO: the request's own `latency`, taken in
    C++ during the same calls.

    Arguments: count.
    Result: call_us, runtime_us.
    """
    opened = operations._model()
    session, batches = opened.session, opened.batches
    call_us: list[float] = []
    runtime_us: list[float] = []
    for number in range(int(str(arguments["count"]))):
        batch = batches[number % len(batches)]
        start = time.perf_counter_ns()
        session.run(batch)
        call_us.append((time.perf_counter_ns() - start) / 1e3)
        if isinstance(session, OpenVINOSession):
            runtime_us.append(float(getattr(session._request, "latency")) * 1e3)  # noqa: B009 - not in the protocol
        elif isinstance(session, LiteRTSession):
            interpreter = session._interpreter
            assert interpreter is not None
            start = time.perf_counter_ns()
            interpreter.invoke()
            runtime_us.append((time.perf_counter_ns() - start) / 1e3)
        else:
            raise UsageError(f"{opened.target.runtime} is not known here: expected litert or openvino.")
    return {"call_us": statistics.median(call_us), "runtime_us": statistics.median(runtime_us)}
