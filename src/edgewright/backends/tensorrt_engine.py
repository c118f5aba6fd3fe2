"""TensorRT's builder and runtime, versions 10 and 11, strongly typed: the types of the ONNX model are kept.

Not run so far: no NVIDIA GPU was at hand. Written after TensorRT's Python API reference; run the conformance suite on a
machine with a GPU before you rely on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends.cuda_driver import Device
from edgewright.core.contracts import LayerCost
from edgewright.core.errors import ConversionError, DataError, IntegrityError, first_line
from edgewright.core.tensors import Arrays, TensorSpec, check_arrays

if TYPE_CHECKING:
    import tensorrt as trt

MAX_BATCH = 32  # as many samples as Edgewright runs at once
_WORKSPACE_BYTES = 4 << 30
_KEPT_MESSAGES = 20


def build_engine(model: Path, inputs: Sequence[TensorSpec], timing_cache: Path) -> bytes:
    """Return the serialized engine of the ONNX file `model` for the first GPU; this takes seconds to minutes.

    Args:
        inputs: the signature; a dynamic batch gets the range 1 to MAX_BATCH, tuned for 1.
        timing_cache: where measured kernels are kept, so that a second build is fast and chooses the same ones.
    Raises:
        ConversionError: the parser or the builder refused, with every unsupported operator by name.
    """
    import tensorrt as trt

    logger = _Log()
    builder = trt.Builder(logger.made)
    # TensorRT 11 knows nothing else and ignores the flag.
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger.made)
    if not parser.parse(model.read_bytes()):
        raise ConversionError(
            _why_not_parsed([parser.get_error(i) for i in range(parser.num_errors)], model.name)
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # it would round float32 to 10 bits
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if any(spec.has_dynamic_batch for spec in inputs):
        profile = builder.create_optimization_profile()
        for spec in inputs:
            rest = [size or 1 for size in spec.shape[1:]]
            lowest, highest = (
                ([1, *rest], [MAX_BATCH, *rest]) if spec.has_dynamic_batch else (spec.shape,) * 2
            )
            profile.set_shape(spec.name, lowest, lowest, highest)
        config.add_optimization_profile(profile)
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    try:
        plan = builder.build_serialized_network(network, config)
    except Exception as err:  # pybind raises RuntimeError and its own kin
        raise ConversionError(f"TensorRT cannot build {model.name}: {first_line(err)}.") from err
    if plan is None:
        raise ConversionError(
            f"TensorRT cannot build {model.name}: {'; '.join(logger.errors) or 'it does not say why'}. "
            "Change the model, or leave this runtime out."
        )
    made = config.get_timing_cache()
    if made is not None:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        timing_cache.write_bytes(bytes(memoryview(made.serialize())))
    return bytes(memoryview(plan))


def _why_not_parsed(errors: Sequence[trt.ParserError], name: str) -> str:
    operators = sorted({str(error.node_operator()) for error in errors} - {""})
    said = "; ".join(first_line(Exception(error.desc())) for error in errors[:3])
    if operators:
        return (
            f"{name} cannot become a TensorRT engine: its parser stops at {', '.join(operators)} ({said}). "
            "Replace them in the model, or leave this runtime out."
        )
    return f"TensorRT's parser cannot read {name}: {said or 'it does not say why'}."


class _Log:
    """Keeps what TensorRT reports as errors."""

    def __init__(self) -> None:
        import tensorrt as trt

        errors: list[str] = []

        class Logger(trt.ILogger):  # type: ignore[misc]
            def log(self, severity: trt.ILogger.Severity, message: str) -> None:
                if severity <= trt.ILogger.Severity.ERROR and len(errors) < _KEPT_MESSAGES:
                    errors.append(message.strip()[:300])

        self.errors = errors
        self.made = Logger()


class TensorrtSession:
    """One deserialized engine, its execution context, and memory on the GPU that grows with the largest batch."""

    def __init__(
        self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, profile: bool
    ) -> None:
        import tensorrt as trt

        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._name = path.name
        self._log = _Log()
        self._device = Device()
        self._memory: dict[str, tuple[int, int]] = {}  # name -> address, bytes
        self._runtime = trt.Runtime(self._log.made)
        self._engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ConversionError(
                f"TensorRT cannot load {path.name}: {'; '.join(self._log.errors)}. An engine runs on the GPU and the "
                "version that it was built with: build it again here."
            )
        have = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        want = {spec.name for spec in (*inputs, *outputs)}
        if have != want:
            raise IntegrityError(
                f"{path.name} has the tensors {sorted(have)}, but {sorted(want)} were recorded. Build it again."
            )
        self._context: trt.IExecutionContext | None = self._engine.create_execution_context()
        self._times: list[tuple[str, float]] = []
        self._is_profiled = profile
        if profile:
            self._profiler = _profiler(self._times)
            self._context.profiler = self._profiler

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's inputs."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's outputs."""
        return self._outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs for one batch; times include the copies to and from the GPU.

        Raises:
            DataError: the arrays do not fit the signature, or the batch is beyond MAX_BATCH.
            ConversionError: TensorRT or CUDA failed.
        """
        context = self._context
        assert context is not None, "the session is closed"
        check_arrays(inputs, self._inputs, what=f"input of {self._name}")
        for spec in self._inputs:
            array = np.ascontiguousarray(inputs[spec.name])
            if not context.set_input_shape(spec.name, array.shape):
                raise DataError(
                    f"input {spec.name!r} has shape {list(array.shape)}; this engine takes batches of 1 to {MAX_BATCH}."
                )
            address = self._address(spec.name, array.nbytes)
            self._device.copy_in(array, address)
            context.set_tensor_address(spec.name, address)
        made: dict[str, tuple[int, tuple[int, ...]]] = {}
        for spec in self._outputs:
            shape = tuple(int(size) for size in context.get_tensor_shape(spec.name))
            if any(size < 0 for size in shape):
                raise ConversionError(
                    f"output {spec.name!r} of {self._name} has a size that depends on the data, which is not read here."
                )
            address = self._address(spec.name, int(np.prod(shape)) * np.dtype(spec.dtype).itemsize)
            context.set_tensor_address(spec.name, address)
            made[spec.name] = address, shape
        if not context.execute_async_v3(self._device.stream):
            raise ConversionError(f"TensorRT failed to run {self._name}: {'; '.join(self._log.errors)}.")
        self._device.synchronize()
        return {
            spec.name: self._device.copy_out(*made[spec.name], np.dtype(spec.dtype)) for spec in self._outputs
        }

    def _address(self, name: str, size_bytes: int) -> int:
        """Return memory for the tensor `name`, kept from one run to the next."""
        address, have = self._memory.get(name, (0, -1))
        if size_bytes <= have:
            return address
        if have >= 0:
            self._device.free(address)
        self._memory[name] = self._device.allocate(size_bytes), size_bytes
        return self._memory[name][0]

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return the time of each layer of one inference; nothing unless opened with `profile`."""
        self._times.clear()
        self.run(inputs)
        if not self._is_profiled:
            return ()
        return [LayerCost(name=name, operator=name, time_us=ms * 1e3) for name, ms in self._times]

    def close(self) -> None:
        """Free the engine and the memory."""
        if self._engine is None:
            return
        for address, _ in self._memory.values():
            self._device.free(address)
        self._memory = {}
        self._context = None
        self._engine = None
        self._device.close()


def _profiler(times: list[tuple[str, float]]) -> trt.IProfiler:
    import tensorrt as trt

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, name: str, ms: float) -> None:
            times.append((name, ms))

    return Profiler()
