"""The proof of the bridge: the ONNX file in ONNX Runtime against the `.tflite` in LiteRT, on random inputs.

What may differ:

- Floats: sums in another order keep 1e-6 of the largest value in a deep network; a wrong constant, pad or axis does
  not come below 1e-4.
- Integers: LiteRT requantizes with integer multipliers and rounds halves away from zero, ONNX multiplies floats and
  rounds halves to even, so each operator may be one step off. How far that is carried through a network depends on
  the network (LiteRT's own two sets of kernels differ by 32 steps in the last layer of a ResNet on random inputs), so
  that no bound on the last layer alone can be both safe and sharp. Therefore every operator is compared by itself, fed
  with LiteRT's own tensors, and may be two steps off; the outputs of the whole must then be as near as LiteRT's own
  kernels are, or near on average.
- int8 weights with float activations: LiteRT rounds the activations to 8 bits when the model runs. The ONNX file is
  compared with the same file with float weights, as strictly as floats, and loosely with the file itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgewright.backends import litert_file
from edgewright.backends.onnx_session import OnnxSession
from edgewright.bridges import tflite_run
from edgewright.bridges.tflite_builder import Builder, real_values
from edgewright.bridges.tflite_graph import pruned, to_onnx
from edgewright.bridges.tflite_model import Model, load_normalised
from edgewright.bridges.tflite_ops import write_operations
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.program import Program
from edgewright.core.tensors import Array

_SEED = 20261122
_FLOAT_SHARE = 1e-4
_TERM_SHARE = 1e-6
_ROUNDED_SHARE = 0.1
_STEPS_OF_ONE = {
    1: 2,
    2: 64,
}  # of one operator, by bytes; int16 functions are tables of 512 entries in LiteRT
_STEPS = {1: 3, 2: 64}
_MEAN_SHARE = 0.05  # of the range of the type
_FLIPS = {
    "float": 1e-3,
    "steps": 2e-2,
    "rounded": 5e-2,
}  # share of other indices where values are nearly equal
# The reference kernel leaves the last channel of the window out, unlike TensorFlow and LiteRT's other kernels.
_WRONG_IN_REFERENCE = frozenset({"LOCAL_RESPONSE_NORMALIZATION"})
_SMALL = ("int8", "uint8", "int16")


def compare(program: Program, model: Model, made: Program, workdir: Path) -> tuple[str, ...]:
    """Check that `made` gives what `program` gives, and return what the user should know of the difference.

    Raises:
        ConversionError: it does not; the message has the numbers.
    """
    kind = (
        "steps" if any(t.scheme and t.dtype in _SMALL and t.value is None for t in model.tensors) else "float"
    )
    rounded = _rounded_weights(model)
    is_fast = any(operation.name in _WRONG_IN_REFERENCE for operation in model.operations)
    session = OnnxSession(made.path, made.inputs, made.outputs, threads=1, is_optimised=False)
    plain = workdir / "compared.tflite"
    notes: tuple[str, ...] = ()
    try:
        _write(program.path, model, plain, {})
        if rounded:
            largest = _check(plain, session, made, "rounded", is_fast)
            notes = (f"LiteRT's rounding of activations moves outputs by {largest:.2%} of the largest value",)
            _write(program.path, model, plain, rounded)
        _check_each(plain, model, made, is_fast)
        _check(plain, session, made, kind, is_fast)
    finally:
        session.close()
        plain.unlink(missing_ok=True)
    return notes


def _inputs(made: Program) -> list[list[Array]]:
    """Return two sets of inputs, the second with two samples where the batch is dynamic."""
    random = np.random.default_rng(_SEED)
    return [
        [
            tflite_run.random_array(
                random,
                np.dtype(spec.dtype),
                tuple(batch if size is None else size for size in spec.shape),
                is_positive=is_positive,
            )
            for spec in made.inputs
        ]
        for batch, is_positive in ((1, False), (2, True))
    ]


def _check_each(plain: Path, model: Model, made: Program, is_fast: bool) -> None:
    """Compare every operator by itself: it reads LiteRT's tensors, and makes what LiteRT makes of them."""
    import onnxruntime as ort

    reference = tflite_run.Reference(plain, name=made.path.name, is_fast=is_fast)
    reference.run(_inputs(made)[0])
    builder = Builder(
        model, [spec.name for spec in made.inputs], [spec.name for spec in made.outputs], is_severed=True
    )
    write_operations(builder, made.path.name)
    makers = {index: operation for operation in model.operations for index in operation.outputs}
    tensors = {}
    for tensor in model.tensors:
        value = reference.tensor(tensor.index)
        if tensor.value is None and value is not None:
            tensors[tensor.index] = value
    graph, fed, results = builder.severed(tensors)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    try:
        session = ort.InferenceSession(
            to_onnx(pruned(graph)).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        taken = {value.name for value in session.get_inputs()}
        values = session.run(
            list(results.values()), {name: tensors[index] for index, name in fed.items() if name in taken}
        )
    except Exception as err:
        raise ConversionError(
            f"ONNX Runtime does not run the operators of {made.path.name}: {first_line(err)}"
        ) from err
    for index, value in zip(results, values, strict=True):
        what = f"{makers[index].name} {model.tensors[index].name!r}"
        read = [tensors[position] for position in makers[index].inputs if position in tensors]
        # A sum that cancels is as exact as its terms are.
        term = max((_largest(array) for array in read if array.dtype.kind == "f"), default=0.0)
        _check_one(what, np.asarray(value), tensors[index], term)


def _check_one(what: str, got: Array, want: Array, term: float) -> None:
    _check_kind(what, got, want)
    if want.size == 0:
        return
    if _is_counted(want):
        flips = float(np.mean(got != want))
        if flips > _FLIPS["float"]:
            raise ConversionError(
                f"{what} differs from LiteRT in {flips:.3%} of its values. It is not converted."
            )
        return
    error, range_ = _error(got, want), _largest(want)
    is_float = want.dtype.kind == "f"
    limit = _FLOAT_SHARE * range_ + _TERM_SHARE * term if is_float else _STEPS_OF_ONE[want.dtype.itemsize]
    if not error <= limit:
        raise ConversionError(
            f"{what} differs from LiteRT by {error:.4g} for the same inputs, where the largest value is {range_:.4g}; "
            f"at most {limit:.4g} is expected. It is not converted."
        )


def _check(plain: Path, session: OnnxSession, made: Program, kind: str, is_fast: bool) -> float:
    """Compare the outputs, and return the largest difference as a share of the largest value."""
    reference = tflite_run.Reference(plain, name=made.path.name, is_fast=is_fast)
    other = _other_kernels(plain, made) if kind == "steps" else None
    rows = _inputs(made)
    wanted = [reference.run(row) for row in rows]
    ranges = [max(_largest(outputs[position]) for outputs in wanted) for position in range(len(made.outputs))]
    largest = 0.0
    for row, outputs in zip(rows, wanted, strict=True):
        got = session.run({spec.name: array for spec, array in zip(made.inputs, row, strict=True)})
        others = other.run(row) if other is not None else outputs
        for spec, want, also, range_ in zip(made.outputs, outputs, others, ranges, strict=True):
            share = _check_output(spec.name, np.asarray(got[spec.name]), want, also, kind, range_)
            largest = max(largest, share)
    return largest


def _other_kernels(plain: Path, made: Program) -> tflite_run.Reference | None:
    try:
        return tflite_run.Reference(plain, name=made.path.name, is_plain=False)
    except ConversionError:
        return None


def _check_output(name: str, got: Array, want: Array, also: Array, kind: str, range_: float) -> float:
    """Return the largest difference as a share of the largest value `range_`; `also` is of LiteRT's other kernels."""
    what = f"output {name!r} of the ONNX file"
    _check_kind(what, got, want)
    if want.size == 0:
        return 0.0
    if _is_counted(want):
        flips = float(np.mean(got != want))
        allowed = _FLIPS[kind] + 2 * float(np.mean(also != want))
        if flips > allowed:
            raise ConversionError(
                f"{what} differs from LiteRT in {flips:.3%} of its values; at most {allowed:.3%} is expected. "
                "It is not converted."
            )
        return flips
    error, own = _error(got, want), _error(also, want)
    is_float = want.dtype.kind == "f"
    mean = float(np.nanmean(np.abs(got.astype(np.float64) - want.astype(np.float64))))
    if kind == "float":
        limit, near = _FLOAT_SHARE * range_, 0.0
    elif kind == "rounded":
        limit, near = _ROUNDED_SHARE * range_, 0.0
    elif is_float:
        limit, near = 2 * own + _FLOAT_SHARE * range_, _MEAN_SHARE * range_
    else:
        limit, near = 2 * own + _STEPS[want.dtype.itemsize], _MEAN_SHARE * 256**want.dtype.itemsize
    if not (error <= limit or mean <= near):
        unit = "" if is_float else " steps"
        raise ConversionError(
            f"{what} differs from LiteRT by {error:.4g}{unit} on random inputs (mean {mean:.4g}), where the largest "
            f"value is {range_:.4g}; at most {limit:.4g} is expected. It is not converted."
        )
    return error / range_ if range_ else 0.0


def _is_counted(want: Array) -> bool:
    """Return whether values are indices or truths: they are equal or not."""
    return want.dtype.kind == "b" or (want.dtype.itemsize > 2 and want.dtype.kind in "iu")


def _check_kind(what: str, got: Array, want: Array) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ConversionError(
            f"{what} is {got.dtype}{list(got.shape)}, LiteRT gives {want.dtype}{list(want.shape)}. "
            "It is not converted; this is a fault of the bridge."
        )


def _error(got: Array, want: Array) -> float:
    """Return the largest difference; infinite where one is finite and the other is not, or another infinity."""
    wide, true = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (wide == true) | (np.isnan(wide) & np.isnan(true))
        difference = np.where(same, 0.0, np.abs(wide - true))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))


def _largest(want: Array) -> float:
    wide = want.astype(np.float64)
    return float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))


def _rounded_weights(model: Model) -> dict[int, Array]:
    """Return tensor -> its real values, for integer weights that LiteRT multiplies with float activations."""
    found: dict[int, Array] = {}
    for operation in model.operations:
        activation = (
            model.tensors[operation.inputs[0]] if operation.inputs and operation.inputs[0] >= 0 else None
        )
        if activation is None or activation.dtype != "float32" or operation.name == "QUANTIZE":
            continue
        for index in operation.inputs[1:]:
            tensor = model.tensors[index] if index >= 0 else None
            if tensor is None or tensor.value is None or tensor.scheme is None:
                continue
            if tensor.dtype in ("int8", "uint8", "int4"):
                found[index] = real_values(tensor.value, tensor.scheme)
    return found


def _write(source: Path, known: Model, path: Path, weights: dict[int, Array]) -> None:
    """Write the normalised file to `path`, with `weights` as float constants."""
    from ai_edge_litert import schema_py_generated as schema

    model = load_normalised(source, known.inputs, known.outputs)
    for index, values in weights.items():
        tensor = model.subgraphs[0].tensors[index]
        model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), dtype=np.uint8)))
        tensor.buffer, tensor.type = len(model.buffers) - 1, schema.TensorType.FLOAT32
        tensor.quantization = None
    litert_file.write(model, path)
