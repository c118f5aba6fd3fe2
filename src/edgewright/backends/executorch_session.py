"""A `.pte` program in the ExecuTorch runtime of the Python package."""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from edgewright.backends import vendor
from edgewright.backends.signed import SignedSession
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import LayerCost
from edgewright.core.errors import ConversionError, IntegrityError, first_line
from edgewright.core.tensors import Array, Arrays, check_arrays

_METHOD = "forward"
_PROFILED_RUNS = 20
_WARM_UP_RUNS = 3
# ScalarType of the runtime, in the order of c10's.
_DTYPES = (
    *("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"),
    *("complex32", "complex64", "complex128", "bool"),
)


class TensorMeta(Protocol):
    """What a program says of an input or output."""

    def sizes(self) -> tuple[int, ...]: ...
    def dtype(self) -> int: ...


class MethodMeta(Protocol):
    """What a program says of a method."""

    def num_inputs(self) -> int: ...
    def num_outputs(self) -> int: ...
    def input_tensor_meta(self, index: int) -> TensorMeta: ...
    def output_tensor_meta(self, index: int) -> TensorMeta: ...


class Method(Protocol):
    """A method that is loaded."""

    @property
    def metadata(self) -> MethodMeta: ...
    def execute(self, inputs: Sequence[object]) -> Sequence[object]: ...


class LoadedProgram(Protocol):
    """A program that is loaded."""

    @property
    def method_names(self) -> set[str]: ...
    def load_method(self, name: str) -> Method: ...
    def write_etdump_result_to_file(self, etdump_path: str, debug_buffer_path: str) -> None: ...


class ExecutorchSession(SignedSession):
    """A loaded program; `profile` loads a second one with the runtime's event tracer when layers are asked for."""

    def __init__(self, artifact: Artifact, *, threads: int, profile: bool) -> None:
        self._artifact = artifact
        self._profile = profile
        with vendor.quiet():  # importing ExecuTorch warns
            _set_threads(threads)
        self._program: LoadedProgram | None
        self._method: Method | None
        self._program, self._method = _load(artifact.path, is_traced=False)
        _check_signature(self._method.metadata, artifact)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: the runtime failed on this program.
        """
        assert self._method is not None, "the session is closed"
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        return self._run(self._method, inputs)

    def _run(self, method: Method, inputs: Arrays) -> Arrays:
        import torch

        given = [torch.from_numpy(np.array(inputs[spec.name], order="C")) for spec in self.inputs]
        try:
            results = method.execute(given)
        except Exception as err:
            raise ConversionError(
                f"ExecuTorch failed to run {self._artifact.path.name}: {first_line(err)}."
            ) from err
        found: dict[str, Array] = {}
        for spec, value in zip(self.outputs, results, strict=True):
            if not isinstance(value, torch.Tensor):
                raise ConversionError(f"output {spec.name!r} is {type(value).__name__}, not a tensor.")
            found[spec.name] = value.detach().contiguous().numpy().copy()
        return found

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return the mean time of each kernel and delegate call of the program, in the order of execution.

        XNNPACK tells the operators inside its partitions, in whole microseconds.
        """
        if not self._profile:
            return ()
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        program, method = _load(self._artifact.path, is_traced=True)
        for _ in range(_WARM_UP_RUNS + _PROFILED_RUNS):
            self._run(method, inputs)
        with tempfile.TemporaryDirectory(prefix="edgewright-profile-") as folder:
            trace = Path(folder) / "trace.etdp"
            try:
                program.write_etdump_result_to_file(str(trace), str(Path(folder) / "debug.bin"))
            except Exception as err:
                raise ConversionError(
                    f"ExecuTorch gives no trace: {first_line(err)}. Its wheel was built without one."
                ) from err
            return _costs(trace)

    def close(self) -> None:
        """Free the model."""
        self._method = None
        self._program = None
        gc.collect()


def _set_threads(threads: int) -> None:
    from executorch.extension.pybindings import portable_lib

    # The pool must be replaced before a method is loaded, and needlessly replacing it has crashed.
    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)


def _load(path: Path, *, is_traced: bool) -> tuple[LoadedProgram, Method]:
    from executorch.runtime import Runtime

    # Without it the runtime has no quantize and dequantize kernels.
    import executorch.kernels.quantized  # noqa: F401  isort: skip

    try:
        program = cast(LoadedProgram, Runtime.get().load_program(path, enable_etdump=is_traced))
        if _METHOD not in program.method_names:
            raise IntegrityError(
                f"{path.name} has the methods {sorted(program.method_names)[:5]}, not {_METHOD!r}. Build it again."
            )
        return program, program.load_method(_METHOD)
    except IntegrityError:
        raise
    except Exception as err:
        raise ConversionError(f"ExecuTorch cannot load {path.name}: {first_line(err)}.") from err


def _check_signature(meta: MethodMeta, artifact: Artifact) -> None:
    """Check that the file takes and gives what the artifact says.

    Raises:
        IntegrityError: it does not.
    """
    counts = (meta.num_inputs(), meta.num_outputs())
    if counts != (len(artifact.inputs), len(artifact.outputs)):
        raise IntegrityError(
            f"{artifact.path.name} has {counts[0]} inputs and {counts[1]} outputs, but {len(artifact.inputs)} and "
            f"{len(artifact.outputs)} were recorded. Build it again."
        )
    for specs, read in (
        (artifact.inputs, meta.input_tensor_meta),
        (artifact.outputs, meta.output_tensor_meta),
    ):
        for number, spec in enumerate(specs):
            try:
                tensor = read(number)
            except Exception as err:
                raise IntegrityError(
                    f"{artifact.path.name} has no tensor where {spec} is recorded. Build it again."
                ) from err
            code, shape = int(tensor.dtype()), tuple(tensor.sizes())
            dtype = _DTYPES[code] if 0 <= code < len(_DTYPES) else str(code)
            if dtype != spec.dtype or shape != spec.shape:
                raise IntegrityError(
                    f"{artifact.path.name} has {dtype}{list(shape)} where {spec} is recorded. Build it again."
                )


def _costs(trace: Path) -> tuple[LayerCost, ...]:
    from executorch.devtools import Inspector

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses values of tensors, which were not asked for
            blocks = Inspector(etdump_path=str(trace)).event_blocks
    except Exception as err:
        raise ConversionError(f"ExecuTorch's trace cannot be read: {first_line(err)}.") from err
    costs = []
    for block in blocks:
        if block.name != "Execute":
            continue
        for number, event in enumerate(block.events):
            if event.perf_data is None or event.name in ("Method::execute", "OPERATOR_CALL", "DELEGATE_CALL"):
                continue
            samples = list(event.perf_data.raw)[_WARM_UP_RUNS:]
            if not samples:
                continue
            costs.append(
                LayerCost(
                    name=f"{number}:{event.name}",
                    operator=event.name,
                    time_us=1e3 * float(np.mean(samples)),  # the inspector's default scale is milliseconds
                    implementation="delegate" if event.is_delegated_op else "portable",
                )
            )
    return tuple(costs)
