"""One test of ONNX's own suite through one runtime; runs in a worker."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgewright.backends import registry
from edgewright.backends.reference import ReferenceBackend
from edgewright.bridges.registry import route
from edgewright.core.errors import EdgewrightError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.measure.parity import compare_outputs, judge
from edgewright.sources.onnx import read_onnx

KINDS = ("node", "simple")
MAX_OPSET = 26
# Below this many elements, an integer, bool or scalar input beside others is taken for an operand (a shape, axes, a
# limit): deployed models hold those as constants, and runtimes with static shapes need them so.
MAX_OPERAND_ELEMENTS = 16


@cache
def tests() -> dict[str, object]:
    """Return the tests of the onnx wheel by kind and name, e.g. "node/test_add"."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, while the suite computes its expected values
        return {f"{kind}/{test.name}": test for kind in KINDS for test in load_model_tests(kind=kind)}


def model_of(name: str) -> onnx.ModelProto:
    """Return the model of a test."""
    test = tests()[name]
    model = getattr(test, "model", None)
    return model if model is not None else onnx.load(Path(str(getattr(test, "model_dir"))) / "model.onnx")  # noqa: B009


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators, 0 for a model without any."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def domains_of(model: onnx.ModelProto) -> list[str]:
    """Return the domains of the operators besides the standard one."""
    return sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})


def operators_of(model: onnx.ModelProto) -> list[str]:
    """Return the types of the operators of the main graph."""
    return sorted({node.op_type for node in model.graph.node})


def run(arguments: dict[str, object]) -> dict[str, object]:
    """Return what a runtime makes of a test.

    Args:
        arguments: {"name": test, "backend": runtime, "workdir": folder}.
    Returns:
        {"verdict": right | refused | caught | WRONG | error, "operands": are they constants, "reason": text,
        "seconds": time}.
    """
    name, backend = str(arguments["name"]), str(arguments["backend"])
    workdir = Path(str(arguments["workdir"]))
    started_s = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict, reason, is_held = _try(name, backend, workdir)
    return {
        "verdict": verdict,
        "reason": reason,
        "operands": is_held,
        "seconds": round(time.perf_counter() - started_s, 3),
    }


def _try(name: str, backend: str, workdir: Path) -> tuple[str, str, bool]:
    model = model_of(name)
    sets = _data_sets(name, model)
    verdict, reason = _attempt(name, backend, model, sets, workdir)
    if verdict != "refused":
        return verdict, reason, False
    held = _with_operands(model, sets[0][0])
    if held is None:
        return verdict, reason, False
    fixed, fed = held
    again = [([row[index] for index in fed], wanted) for row, wanted in sets]
    # Other sets of the same test may hold other operands: only those that agree are run.
    same = [pair for pair, (row, _) in zip(again, sets, strict=True) if _same_operands(row, sets[0][0], fed)]
    second, second_reason = _attempt(name, backend, fixed, same, workdir)
    return second, second_reason, True


def _attempt(
    name: str,
    backend: str,
    model: onnx.ModelProto,
    sets: Sequence[tuple[list[object], list[object]]],
    workdir: Path,
) -> tuple[str, str]:
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True)
    test = tests()[name]
    try:
        path = workdir / "model.onnx"
        onnx.save(model, path)
        source = program = read_onnx(path, spec=name)
        runtime = registry.get(backend)
        for bridge in route(program.format, runtime.consumes, runtime=backend):
            program = bridge.convert(program, workdir / bridge.name)
        target = Target(runtime=backend, precision=Precision(program.precision))
        reason = runtime.refuses(program, target)
        if reason:
            return "refused", reason
        artifact = runtime.convert(program, target, None, workdir / backend)
        session = runtime.open(artifact, target)
        try:
            for row, wanted in sets:
                feeds = {spec.name: np.asarray(v) for spec, v in zip(program.inputs, row, strict=True)}
                results = session.run(feeds)
                got = [results[spec.name] for spec in _outputs(program)]
                why = _difference(got, wanted, float(getattr(test, "rtol")), float(getattr(test, "atol")))  # noqa: B009
                if why:
                    agrees, reason = _parity(source, feeds, got)
                    return ("WRONG", why) if agrees else ("caught", f"{why}; parity: {reason}")
        finally:
            session.close()
    except EdgewrightError as err:
        return "refused", str(err)
    except Exception as err:  # a fault of ours or of the vendor's that nobody translated
        return "error", f"{type(err).__name__}: {err}"[:400]
    return "right", ""


def _parity(source: Program, feeds: dict[str, np.ndarray], got: Sequence[object]) -> tuple[bool, str]:
    """Return whether `edgewright build` would call these outputs ok, and why not: the source itself is run beside."""
    reference = ReferenceBackend()
    target = Target(runtime="reference", precision=Precision.FP32)
    try:
        session = reference.open(reference.convert(source, target, None, Path()), target)
        wanted = session.run(feeds)
        session.close()
        names = [spec.name for spec in source.outputs]
        mine = {name: np.atleast_1d(np.asarray(value)) for name, value in zip(names, got, strict=True)}
        return judge(compare_outputs({n: np.atleast_1d(wanted[n]) for n in names}, mine), source.precision)
    except EdgewrightError:  # the source's own framework does not run it: then nothing is called ok
        return False, "the source cannot be run beside it"


def _outputs(program: Program) -> Sequence[object]:
    return program.outputs


def _difference(got: Sequence[object], wanted: Sequence[object], rtol: float, atol: float) -> str:
    """Return how the outputs break ONNX's own rule for its suite (dtype, shape, numpy's assert_allclose), or ""."""
    if len(got) != len(wanted):
        return f"{len(got)} outputs instead of {len(wanted)}"
    for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
        have, want = np.asarray(one), np.asarray(other)
        if have.shape != want.shape or have.dtype != want.dtype:
            return (
                f"output {index} is {have.dtype}{list(have.shape)} instead of {want.dtype}{list(want.shape)}"
            )
        if want.dtype.kind in "OUS":
            if not np.array_equal(have.astype(str), want.astype(str)):
                return f"output {index} has other texts"
        elif not np.allclose(have.astype(np.float64), want.astype(np.float64), rtol, atol, equal_nan=True):
            worst = np.nanmax(np.abs(have.astype(np.float64) - want.astype(np.float64)))
            return f"output {index} differs by {worst:.3g}"
    return ""


def _data_sets(name: str, model: onnx.ModelProto) -> list[tuple[list[object], list[object]]]:
    """Return the inputs and expected outputs of each data set, in the order of the model's."""
    test = tests()[name]
    held = getattr(test, "data_sets", None)
    if held is not None:
        return [([_plain(v) for v in inputs], [_plain(v) for v in outputs]) for inputs, outputs in held]
    folder = Path(str(getattr(test, "model_dir")))  # noqa: B009
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        sets.append((_read(data, "input", model.graph.input), _read(data, "output", model.graph.output)))
    return sets


def _plain(value: object) -> object:
    """Return an array; some tests hold the protobuf instead, for types that numpy had not."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _read(folder: Path, kind: str, values: Sequence[onnx.ValueInfoProto]) -> list[object]:
    found: list[object] = []
    for index, value in enumerate(values):
        path = folder / f"{kind}_{index}.pb"
        if not path.is_file():
            break
        if value.type.WhichOneof("value") != "tensor_type":
            found.append(None)  # a sequence or an optional: the model is refused for it
            continue
        found.append(numpy_helper.to_array(onnx.load_tensor(path)))
    return found


def _with_operands(model: onnx.ModelProto, row: Sequence[object]) -> tuple[onnx.ModelProto, list[int]] | None:
    """Return the model with its operands as initializers, and the positions of the inputs that are left."""
    held: list[int] = []
    for index, value in enumerate(row):
        if not isinstance(value, np.ndarray | np.generic):
            continue
        array = np.asarray(value)
        is_small = array.size <= MAX_OPERAND_ELEMENTS
        is_integer = array.dtype.kind in "iub" and array.ndim <= 1
        is_number = array.ndim == 0 or (array.ndim == 1 and index > 0)
        if is_small and (is_integer or is_number):
            held.append(index)
    if len(row) > 1 and len(held) == len(row) and any(np.asarray(row[i]).dtype.kind == "f" for i in held):
        held = held[1:]
    if not held:
        return None
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    names = [value.name for value in model.graph.input]
    for index in held:
        fixed.graph.initializer.append(numpy_helper.from_array(np.asarray(row[index]), names[index]))
    for index in reversed(held):
        del fixed.graph.input[index]
    return fixed, [index for index in range(len(row)) if index not in held]


def _same_operands(row: Sequence[object], first: Sequence[object], fed: Sequence[int]) -> bool:
    return all(
        index in fed or np.array_equal(np.asarray(row[index]), np.asarray(first[index]))
        for index in range(len(row))
    )
