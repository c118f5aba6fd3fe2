"""An ONNX Runtime session behind the Session contract."""

from __future__ import annotations

import gc
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.contracts import LayerCost
from edgewright.core.errors import ConversionError, IntegrityError, first_line
from edgewright.core.tensors import Arrays, TensorSpec, check_arrays

if TYPE_CHECKING:
    import onnxruntime as ort

_ERRORS_ONLY = 3
_PROFILED_RUNS = 20
_WARM_UP_RUNS = 3


class OnnxSession:
    """A loaded `.onnx` file on the CPU.

    Args:
        inputs, outputs: the signature in the order to keep; names are those of the file.
        threads: of one operator; operators run one after another.
        settings: session configuration entries of ONNX Runtime.
        is_optimised: False runs the graph as it is written.
        profile: enables `layers`.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        threads: int,
        settings: Mapping[str, str] | None = None,
        is_optimised: bool = True,
        profile: bool = False,
    ) -> None:
        self._path = path
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._names = [spec.name for spec in outputs]
        self._threads = threads
        self._settings = dict(settings or {})
        self._is_optimised = is_optimised
        self._profile = profile
        self._session: ort.InferenceSession | None = self._load()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs in the order of the artifact."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs in the order of the artifact."""
        return self._outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: the runtime failed on this graph.
        """
        check_arrays(inputs, self._inputs, what=f"input of {self._path.name}")
        return self._run(self._loaded(), inputs)

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return the mean time of each node over several runs, in the order of execution.

        Profiling is a property of a whole ONNX Runtime session, so a second one is loaded for it: `run` stays
        free of its overhead.
        """
        if not self._profile:
            return ()
        check_arrays(inputs, self._inputs, what=f"input of {self._path.name}")
        with tempfile.TemporaryDirectory(prefix="edgewright-profile-") as folder:
            session = self._load(trace_prefix=str(Path(folder) / "trace"))
            for _ in range(_WARM_UP_RUNS + _PROFILED_RUNS):
                self._run(session, inputs)
            trace = Path(session.end_profiling())
            return _layers_of(json.loads(trace.read_text(encoding="utf-8")))

    def close(self) -> None:
        """Free the model; `run` must not be called any more."""
        self._session = None
        gc.collect()

    def _loaded(self) -> ort.InferenceSession:
        assert self._session is not None, "the session is closed"
        return self._session

    def _run(self, session: ort.InferenceSession, inputs: Arrays) -> Arrays:
        try:
            values = session.run(self._names, dict(inputs))
        except Exception as err:
            raise ConversionError(
                f"ONNX Runtime failed to run {self._path.name}: {first_line(err)}. "
                "Check the operator named with `edgewright inspect`."
            ) from err
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}

    def _load(self, *, trace_prefix: str | None = None) -> ort.InferenceSession:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _ERRORS_ONLY
        if not self._is_optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for key, value in self._settings.items():
            options.add_session_config_entry(key, value)
        if trace_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = trace_prefix
        try:
            session = ort.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        except Exception as err:
            raise ConversionError(
                f"ONNX Runtime {ort.__version__} cannot load {self._path.name}: {first_line(err)}"
            ) from err
        have = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
        missing = [spec.name for spec in (*self._inputs, *self._outputs) if spec.name not in have]
        if missing:
            raise IntegrityError(
                f"{self._path.name} has no tensor {missing[0]!r}; it has {sorted(have)}. "
                "It is not the file that was recorded: build it again."
            )
        return session


def _layers_of(events: list[dict[str, object]]) -> tuple[LayerCost, ...]:
    """Return the mean cost per node of a Chrome trace that ONNX Runtime wrote; the warm-up runs are left out.

    Durations ("dur") are microseconds. A node in a loop runs several times per inference: its times add up.
    """
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    operators: dict[str, tuple[str, str]] = {}
    starts = []
    for event in events:
        if event.get("name") == "model_run":
            starts.append(float(str(event["ts"])))
        arguments = event.get("args")
        if event.get("cat") != "Node" or not isinstance(arguments, dict):
            continue
        name = str(event["name"])
        if not name.endswith("_kernel_time"):
            continue
        name = name.removesuffix("_kernel_time")
        times[name].append((float(str(event["ts"])), float(str(event["dur"]))))
        operators[name] = (str(arguments.get("op_name", "")), str(arguments.get("provider", "")))
    measured_from = sorted(starts)[_WARM_UP_RUNS]
    costs = []
    for name, samples in sorted(times.items(), key=lambda item: item[1][0][0]):
        total_us = sum(duration for start, duration in samples if start >= measured_from)
        operator, provider = operators[name]
        costs.append(
            LayerCost(
                name=name, operator=operator, time_us=total_us / _PROFILED_RUNS, implementation=provider
            )
        )
    return tuple(costs)
