"""OpenVINO's runtime on the CPU: one compiled model and one inference request, without telemetry."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from edgewright.backends import openvino_file, vendor
from edgewright.backends.openvino_errors import reason_of
from edgewright.backends.signed import SignedSession
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import LayerCost
from edgewright.core.errors import ConversionError, DataError
from edgewright.core.tensors import Array, Arrays, check_arrays


class Profile(Protocol):
    """What the runtime tells of one node."""

    node_name: str
    node_type: str
    exec_type: str
    real_time: timedelta


class HostTensor(Protocol):
    """Memory of one input or output of a request."""

    data: Array
    shape: object


class Request(Protocol):
    """One inference request."""

    profiling_info: list[Profile]

    def get_input_tensor(self, index: int) -> HostTensor: ...
    def get_output_tensor(self, index: int) -> HostTensor: ...
    def infer(self, *, share_outputs: bool) -> Mapping[int, Array]: ...


class Compiled(Protocol):
    """A model compiled for a device."""

    def create_infer_request(self) -> Request: ...
    def get_property(self, name: str) -> object: ...


class Core(Protocol):
    """The runtime."""

    def compile_model(self, model: str, device: str, config: Mapping[str, object]) -> Compiled: ...


class OpenVINOSession(SignedSession):
    """One compiled model and one inference request."""

    def __init__(self, artifact: Artifact, *, threads: int, profile: bool) -> None:
        self._artifact = artifact
        self._is_profiled = profile
        self._compiled = compile_file(artifact.path, threads=threads, profile=profile)
        self._request: Request | None = self._compiled.create_infer_request()
        self._names = [spec.name for spec in artifact.inputs]
        self._outputs = list(enumerate(spec.name for spec in artifact.outputs))
        self._memory: list[tuple[str, Array]] = []  # views of the request's inputs, good while shapes stay

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs for one batch.

        Raises:
            DataError: an input is missing or does not fit the signature.
        """
        request = self._request
        if request is None:
            raise DataError("the session is closed. Open the artifact again.")
        try:
            # Filling the request's own memory: handing arrays to `infer` costs 25 us of Python per call.
            if any(inputs[name].shape != view.shape for name, view in self._memory):
                self._memory = []
            for name, view in self._memory or self._resize(request, inputs):
                np.copyto(view, inputs[name], casting="no")  # any other casting is done without a word
            request.infer(share_outputs=True)
            return {name: request.get_output_tensor(index).data.copy() for index, name in self._outputs}
        except (KeyError, TypeError, ValueError, RuntimeError) as err:
            name = self._artifact.path.name
            raise DataError(
                f"openvino cannot run {name}: {reason_of(err)}. Inputs are {self._names}."
            ) from err

    def _resize(self, request: Request, inputs: Arrays) -> list[tuple[str, Array]]:
        """Give the request's inputs the shapes of `inputs`; return their memory by name.

        Raises:
            DataError: the arrays do not fit the signature.
        """
        specs = self._artifact.inputs
        check_arrays(inputs, specs, what=f"input of {self._artifact.path.name}")
        for index, spec in enumerate(specs):
            tensor = request.get_input_tensor(index)
            tensor.shape = inputs[spec.name].shape
            self._memory.append((spec.name, tensor.data))
        return self._memory

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return the cost of each layer of one inference; nothing unless opened with `profile`."""
        self.run(inputs)
        if not self._is_profiled or self._request is None:
            return ()
        return [
            LayerCost(
                name=row.node_name,
                operator=row.node_type,
                time_us=row.real_time / timedelta(microseconds=1),
                implementation=row.exec_type,
            )
            for row in self._request.profiling_info
            if row.real_time > timedelta(0)
        ]

    def property(self, name: str) -> object:
        """Return a property of the compiled model, as the runtime reports it."""
        return self._compiled.get_property(name)

    def close(self) -> None:
        """Free the model."""
        self._memory = []
        self._request = None


class _SilentTelemetry:
    """Stands where the vendor's telemetry would: takes every call and sends nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        # Calls alone: the converter looks into a `backend` that the real one has.
        if name.startswith(("send_", "start_", "end_", "force_")):
            return lambda *_, **__: None
        raise AttributeError(name)


def keep_telemetry_off() -> None:
    """Keep the converter and NNCF from sending usage statistics and from writing their consent files."""
    loaded = sys.modules.get("openvino_telemetry")
    if loaded is None:
        # None makes the import fail, for which both tools fall back to a stub.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    else:
        loaded.Telemetry = _SilentTelemetry  # type: ignore[attr-defined]


@cache
def core() -> Core:
    keep_telemetry_off()
    with vendor.quiet():
        import openvino

        return cast(Core, openvino.Core())


def compile_file(path: Path, *, threads: int, profile: bool) -> Compiled:
    """Return the model compiled for latency: one stream of `threads` threads.

    Threads are not pinned to cores: the operating system (or whoever measures) places them, as with other runtimes.
    """
    openvino_file.parse_xml(path)
    config: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": profile,
        # Else the CPU would quantize activations to int8 before linear layers with weights of 8 or 4 bits.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    try:
        return core().compile_model(str(path), "CPU", config)
    except Exception as err:  # the binding raises RuntimeError and its own kin
        raise ConversionError(
            f"the OpenVINO runtime cannot load {path.name}: {reason_of(err)}. "
            "Build it again, or leave this runtime out."
        ) from err
