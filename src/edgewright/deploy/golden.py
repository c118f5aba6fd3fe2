"""Golden cases: raw inputs, the tensors and the results that must come of them, and how near they must be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.files import read_json, write_aside, write_json
from edgewright.core.tensors import MAX_RANK, Array
from edgewright.processing.processor import Plan
from edgewright.processing.values import ValueType

GOLDEN_FOLDER = "golden"
GOLDEN_NAME = "golden.json"
GOLDEN_VERSION = 1
MAX_CASES = 16
_MAX_ARRAY_BYTES = 256 << 20
_DTYPES = ("float32", "int8", "uint8", "int16", "int32", "int64")

# The processing is the same arithmetic everywhere, so its tensors must agree to rounding.
TENSOR_TOLERANCE = 1e-5  # of the largest value of the tensor, for floats
TENSOR_STEPS = 1  # for integers
# The model itself may run on other kernels than here.
SCORE_TOLERANCE = 0.02
BOX_TOLERANCE = 0.02  # of the image's larger side
MASK_AGREEMENT = 0.99  # share of the pixels
VALUE_TOLERANCE = 0.02  # of the largest value


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One golden case.

    Of a stream `raw` is a whole number of hops, `tensors` is of the first one, and `results` are stacked, [runs, ...].

    Attributes:
        raw: name of the input -> array; of text inputs there is none.
        tensors: name of the first model's input -> what the processing makes of `raw`, batch axis included.
        results: name of the result -> array, as its kind holds it.
        outputs: TENSOR or MODEL.TENSOR -> what the models gave, [runs, ...]: for where the processing can be run, but
            not the models.
    """

    name: str
    raw: Mapping[str, Array]
    tensors: Mapping[str, Array]
    results: Mapping[str, Array]
    outputs: Mapping[str, Array] = field(default_factory=dict)


def cases_text(count: int) -> str:
    """Return "1 golden case", "2 golden cases"."""
    return f"{count} golden case{'' if count == 1 else 's'}"


def array_file(number: int, group: str, index: int) -> str:
    """Return the file of an array: of the case, of "inputs", "tensors", "results" or "outputs", of its place there."""
    return f"{number}_{group}_{index}.bin"


def write_golden(cases: Sequence[Case], plan: Plan, folder: Path) -> None:
    """Write `golden.json` and one little-endian .bin an array into `folder`; an array without elements has none."""
    records = []
    for number, case in enumerate(cases):
        groups: dict[str, object] = {}
        for group, arrays in (
            ("inputs", case.raw),
            ("tensors", case.tensors),
            ("results", case.results),
            ("outputs", case.outputs),
        ):
            groups[group] = [
                _write_array(folder, array_file(number, group, index), name, array)
                | _kind_of(plan, group, name)
                for index, (name, array) in enumerate(arrays.items())
            ]
        records.append({"name": case.name, **groups})
    record = {
        "edgewright_golden": GOLDEN_VERSION,
        "tolerances": {
            "tensor": TENSOR_TOLERANCE, "tensor_steps": TENSOR_STEPS, "score": SCORE_TOLERANCE, "box": BOX_TOLERANCE,
            "mask_agreement": MASK_AGREEMENT, "value": VALUE_TOLERANCE,
        },
        "cases": records,
    }  # fmt: skip
    write_json(folder / GOLDEN_NAME, record)


def read_golden(folder: Path) -> tuple[Case, ...]:
    """Return the cases in `folder`.

    Raises:
        IntegrityError: a file is missing, or is not what `write_golden` wrote.
    """
    record = read_json(folder / GOLDEN_NAME)
    cases = record.get("cases")
    read: set[str] = set()
    if (
        record.get("edgewright_golden") != GOLDEN_VERSION
        or not isinstance(cases, list)
        or len(cases) > MAX_CASES
    ):
        raise IntegrityError(f"{folder / GOLDEN_NAME} is no list of golden cases. Make the bundle again.")
    try:
        return tuple(
            Case(
                name=str(case["name"]),
                raw=_read_arrays(folder, case["inputs"], read),
                tensors=_read_arrays(folder, case["tensors"], read),
                results=_read_arrays(folder, case["results"], read),
                outputs=_read_arrays(folder, case["outputs"], read),
            )
            for case in cases
        )
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as err:
        raise IntegrityError(
            f"{folder / GOLDEN_NAME} is damaged: {err!r:.120}. Make the bundle again."
        ) from err


def compare_tensor(name: str, want: Array, got: Array) -> str:
    """Return how the tensor `got` differs from `want` beyond rounding; empty where it does not."""
    if want.shape != got.shape or want.dtype != got.dtype:
        return (
            f"tensor {name} is {got.dtype}{list(got.shape)}, but {want.dtype}{list(want.shape)} is expected"
        )
    if want.size == 0:
        return ""
    distance = np.abs(got.astype(np.float64) - want.astype(np.float64))
    is_float = want.dtype.kind == "f"
    limit = TENSOR_TOLERANCE * max(float(np.abs(want).max()), 1.0) if is_float else TENSOR_STEPS
    # not <=, so that NaN counts
    if not float(distance.max()) <= limit:
        where = int(np.argmax(distance))
        return f"tensor {name} differs by {float(distance.max()):.3g} at element {where}; at most {limit:.3g} is right"
    return ""


def compare_result(name: str, kind: str, want: Array, got: Array, *, side: int) -> str:
    """Return how the result `got` differs from `want` beyond what other kernels explain; empty where it does not.

    Args:
        side: the larger side of the source image in pixels, for boxes and keypoints.
    """
    if kind in ("classes", "boxes", "keypoints") and want.shape != got.shape:
        return f"result {name} has {len(got)} rows, but {len(want)} are expected"
    if want.shape != got.shape:
        return f"result {name} is {list(got.shape)}, but {list(want.shape)} is expected"
    if want.size == 0:
        return ""
    if kind in ("mask", "codes"):
        agreement = float((want == got).mean())
        return "" if agreement >= MASK_AGREEMENT else f"result {name} agrees in {agreement:.1%} only"
    columns = {
        "classes": (("class", slice(0, 1), 0.0), ("score", slice(1, 2), SCORE_TOLERANCE)),
        "boxes": (
            ("corner", slice(0, 4), BOX_TOLERANCE * side), ("score", slice(4, 5), SCORE_TOLERANCE),
            ("class", slice(5, 6), 0.0),
        ),
        "keypoints": (("place", slice(0, 2), BOX_TOLERANCE * side), ("score", slice(2, 3), SCORE_TOLERANCE)),
    }.get(kind, (("value", slice(None), VALUE_TOLERANCE * max(float(np.abs(want).max()), 1e-6)),))  # fmt: skip
    for what, part, limit in columns:
        worst = float(np.abs(got[..., part].astype(np.float64) - want[..., part].astype(np.float64)).max())
        if not worst <= limit:
            return f"result {name}: a {what} differs by {worst:.3g}; at most {limit:.3g} is right"
    return ""


def _kind_of(plan: Plan, group: str, name: str) -> dict[str, object]:
    if group == "results":
        return {"kind": plan.results[name].kind}
    if group == "inputs":
        made: ValueType = plan.types[name]
        return {"kind": made.kind, **({"order": made.order} if made.order else {})}
    return {}


def _write_array(folder: Path, file: str, name: str, array: Array) -> dict[str, object]:
    if str(array.dtype) not in _DTYPES:
        raise UsageError(f"golden array {name!r} is {array.dtype}; {', '.join(_DTYPES)} are expected.")
    with write_aside(folder / file) as aside:
        aside.write_bytes(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return {"name": name, "file": file, "dtype": str(array.dtype), "shape": list(array.shape)}


def _read_arrays(folder: Path, records: object, read: set[str]) -> dict[str, Array]:
    """Return the arrays by name; `read` holds the files that were read, each once, so that few bytes stay few."""
    if not isinstance(records, list):
        raise TypeError("a list of arrays is expected")
    found: dict[str, Array] = {}
    for record in records:
        name, file, dtype = str(record["name"]), str(record["file"]), str(record["dtype"])
        shape = [int(size) for size in record["shape"]]
        if Path(file).name != file or dtype not in _DTYPES or file in read or name in found:
            raise ValueError(f"array {json.dumps(name)} of {dtype} in {json.dumps(file)}")
        read.add(file)
        if min(shape, default=0) < 0 or len(shape) > MAX_RANK:
            raise ValueError(f"{file} has the shape {shape}")
        if (folder / file).stat().st_size > _MAX_ARRAY_BYTES:
            raise ValueError(f"{file} is too large")
        data = np.frombuffer((folder / file).read_bytes(), dtype=np.dtype(dtype).newbyteorder("<"))
        found[name] = data.reshape(shape)
    return found
