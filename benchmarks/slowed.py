"""A worker operation that makes an opened model slower by a known share."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgewright.core.contracts import LayerCost, Session
from edgewright.core.tensors import Arrays, TensorSpec
from edgewright.measure import operations


class SlowedSession:
    """A session whose every call takes `factor` times as long as it would: it waits busily for the rest.

    The wait is a share of the call's own time, so that it stays true in slow phases of the machine. The
    wrapper itself costs some 0.3 us a call; wrap the other side with factor 1 to have it on both.
    """

    def __init__(self, session: Session, factor: float) -> None:
        self._session = session
        self._factor = factor

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The signature of the wrapped session."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The signature of the wrapped session."""
        return self._session.outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Return what the wrapped session returns, later."""
        start = time.perf_counter_ns()
        outputs = self._session.run(inputs)
        deadline = start + (time.perf_counter_ns() - start) * self._factor
        while time.perf_counter_ns() < deadline:
            pass
        return outputs

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return the layers of the wrapped session."""
        return self._session.layers(inputs)

    def close(self) -> None:
        """Close the wrapped session."""
        self._session.close()


def open_slowed(arguments: dict[str, object]) -> dict[str, object]:
    """Open an artifact as the product does, then slow it down; `factor` is 1.05 for 5 %."""
    answer = operations.open_artifact(arguments)
    opened = operations._model()
    opened.session = SlowedSession(opened.session, float(str(arguments["factor"])))
    return answer
