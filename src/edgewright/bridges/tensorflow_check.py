"""The proof of TensorFlow's bridges: what was made against its source, run by the source's own framework."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgewright.backends.tensorflow_session import TensorflowSession, sample_inputs
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.program import Program
from edgewright.core.tensors import Array, Arrays

# float32 sums in another order: measured at most 3e-7 on the models of the tests.
_TOLERANCE = 1e-4
_SEEDS = (20261121, 20261122)


def run_tflite(made: Program, arrays: Arrays) -> Arrays:
    """Return what LiteRT's own kernels, without delegates, make of the program's inputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = Interpreter(model_path=str(made.path), experimental_op_resolver_type=resolver)
        slots = [detail["index"] for detail in interpreter.get_input_details()]
        for slot, spec in zip(slots, made.inputs, strict=True):
            if not spec.is_static:
                interpreter.resize_tensor_input(slot, arrays[spec.name].shape)
        interpreter.allocate_tensors()
        for slot, spec in zip(slots, made.inputs, strict=True):
            interpreter.set_tensor(slot, arrays[spec.name])
        interpreter.invoke()
        results = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    except Exception as err:
        raise ConversionError(f"LiteRT cannot run what the converter wrote: {first_line(err)}.") from err
    return {spec.name: np.array(value) for spec, value in zip(made.outputs, results, strict=True)}


def compare(source: Program, made: Program, run: Callable[[Arrays], Arrays]) -> float:
    """Return the largest difference between `made` and its source, run by its own framework.

    Raises:
        ConversionError: it is over 1e-4 (of the largest value, where that is over 1), or the shapes differ.
    """
    session = TensorflowSession(source, threads=1)
    largest = 0.0
    for seed in _SEEDS:
        batch = 1 if any(spec.shape[:1] == (1,) for spec in made.inputs) else 2
        inputs = sample_inputs(source.inputs, batch=batch, free=16, seed=seed)
        wanted, got = session.run(inputs), run(inputs)
        for spec in source.outputs:
            largest = max(largest, _difference(spec.name, got[spec.name], wanted[spec.name], made))
    session.close()
    return largest


def _difference(name: str, got: Array, wanted: Array, made: Program) -> float:
    what = f"output {name!r} of the {made.format} that was made"
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise ConversionError(
            f"{what} is {got.dtype}{list(got.shape)}, but the source gives {wanted.dtype}{list(wanted.shape)}. "
            "It is not converted."
        )
    wide, true = got.astype(np.float64), wanted.astype(np.float64)
    is_same = (wide == true) | (np.isnan(wide) & np.isnan(true))
    with np.errstate(invalid="ignore"):
        difference = float(np.where(is_same, 0.0, np.abs(wide - true)).max(initial=0.0))
    finite = np.abs(true[np.isfinite(true)])
    allowed = _TOLERANCE * max(1.0, float(finite.max(initial=0.0)))
    if not difference <= allowed:
        raise ConversionError(
            f"{what} differs by {difference:.3g} from the source on random inputs; at most {allowed:.3g} is expected. "
            "It is not converted."
        )
    return difference
