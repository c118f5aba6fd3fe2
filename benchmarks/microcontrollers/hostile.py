"""Hostile models: mutated files, each refused with an error of the project or made into C that is clean.

    python benchmarks/microcontrollers/hostile.py --each 400 --compare

Two mutators change real models: bytes outside the weights (offsets, lengths, shapes, scales, codes), now and then cut
off; and fields of the model read as a whole (shapes, types, indices, options, scales, order, buffers). What is made
into C is built by gcc and clang with every warning an error, under the address and undefined-behaviour sanitizers, and
run.
With --compare the interpreter, in a process of its own, gives the outputs that the C code must have where it takes the
file at all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from batches import SANITIZE, Checkable, Result, check
from flatbuffers import Builder
from made_draws import Draw
from made_kinds import cases

from edgewright.core.errors import EdgewrightError
from edgewright.core.tensors import Array
from edgewright.microcontrollers import oracle
from edgewright.microcontrollers.emit import (
    CModel,
    compile_model,
    golden_inputs,
    write_checks,
    write_sources,
)

MODELS = {
    "kws": "mlperf-tiny/kws_dscnn_int8.tflite",
    "hello_world": "tflite-micro/hello_world_int8.tflite",
    "person_detect": "tflite-micro/person_detect.tflite",
    "lstm": "tflite-micro/trained_lstm_int8.tflite",
    "micro_speech": "tflite-micro/micro_speech_quantized.tflite",
}
RUNS = 2
# Files that are made into C, but whose run or whose build would take minutes under the sanitizers.
MOST_MACS, MOST_BYTES = 1 << 25, 1 << 24
_LARGEST_NUMBER = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A file that was written."""

    name: str
    kind: str
    path: Path


def main() -> int:
    """Print the table; the exit code is 1 when anything is neither refused nor clean, or differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=200, help="mutants of each model and mutator")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--only", default="", help="models, separated by commas")
    parser.add_argument(
        "--generated",
        action="store_true",
        help="mutate one generated model of each kind instead of real ones",
    )
    parser.add_argument("--compare", action="store_true", help="run the interpreter on what is made into C")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="keep mutants and C files in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        known = (
            generated_models(folder, arguments.seed) if arguments.generated else real_models(arguments.assets)
        )
        wanted = {
            name: content
            for name, content in known.items()
            if not arguments.only or name in arguments.only.split(",")
        }
        made = list(mutants(folder, wanted, each=arguments.each, seed=arguments.seed))
        rows = attack(made, folder, has_oracle=arguments.compare)
    counts = Counter((row["kind"], row["verdict"]) for row in rows)
    verdicts = sorted({row["verdict"] for row in rows})
    print(f"{'model and mutator':<26}" + "".join(f"{verdict:>16}" for verdict in verdicts))
    for kind in dict.fromkeys(row["kind"] for row in rows):
        print(f"{kind:<26}" + "".join(f"{counts[kind, verdict]:>16}" for verdict in verdicts))
    total = Counter(row["verdict"] for row in rows)
    print(f"{f'all {len(rows)}':<26}" + "".join(f"{total[verdict]:>16}" for verdict in verdicts))
    for row in rows:
        if row["verdict"] in ("failed", "not clean", "differs"):
            print(f"{row['verdict']} {row['name']}: {row['reason']}")
    for reason, count in Counter(
        row["reason"][:100] for row in rows if row["verdict"] == "refused"
    ).most_common(8):
        print(f"refused {count} x {reason}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"version": oracle.version(), "rows": rows}, indent=1))
    return 1 if any(row["verdict"] in ("failed", "not clean", "differs") for row in rows) else 0


def attack(made: list[Mutant], folder: Path, *, has_oracle: bool) -> list[dict[str, str]]:
    """Return kind, name, verdict and reason of each mutant.

    The verdicts: refused; clean; exact (clean, and the interpreter gives the same); too large (not run); and the
    failures: failed (an exception that is none of the project's), not clean, differs.
    """
    rows: dict[str, dict[str, str]] = {}
    models: dict[str, CModel] = {}
    for mutant in made:
        rows[mutant.name] = {"kind": mutant.kind, "name": mutant.name, "verdict": "", "reason": ""}
        try:
            model = compile_model(mutant.path, name=mutant.name)
        except EdgewrightError as err:
            rows[mutant.name] |= {"verdict": "refused", "reason": f"{type(err).__name__}: {str(err)[:400]}"}
        except Exception as err:  # the point of the attack
            rows[mutant.name] |= {"verdict": "failed", "reason": f"{type(err).__name__}: {str(err)[:200]}"}
        else:
            if model.macs > MOST_MACS or max(model.plan.arena_bytes, model.table_bytes) > MOST_BYTES:
                rows[mutant.name]["verdict"] = "too large"
            else:
                models[mutant.name] = model
    expected, compared = _expected(made, models, has_oracle=has_oracle)
    checked = []
    for name, model in models.items():
        write_sources(model, folder)
        write_checks(model, folder, expected[name], source="LiteRT Micro")
        checked.append(Checkable(name=name, folder=folder))
        rows[name]["verdict"] = "exact" if name in compared else "clean"
    for cc in filter(shutil.which, ("gcc", "clang")):
        for name, found in check(checked, folder / "built", flags=SANITIZE, cc=cc).items():
            verdict = _verdict(found, is_compared=name in compared)
            if verdict:
                rows[name] |= {"verdict": verdict, "reason": f"{cc}: {found.said}"}
    return list(rows.values())


def _verdict(found: Result, *, is_compared: bool) -> str:
    if not found.is_clean:
        return "not clean"
    return "differs" if is_compared and not found.is_right else ""


def _expected(
    made: list[Mutant], models: dict[str, CModel], *, has_oracle: bool
) -> tuple[dict[str, list[tuple[Array, ...]]], set[str]]:
    """Return the outputs that the self-tests expect, and the names of those that the interpreter gave."""
    expected, compared = {}, set()
    for name, model in models.items():
        tensors = [model.graph.tensor(index) for index in model.graph.outputs]
        expected[name] = [tuple(np.zeros(one.shape, dtype=one.dtype) for one in tensors)] * RUNS
    known = [mutant for mutant in made if mutant.name in models and models[mutant.name].is_exact]
    if has_oracle and known:
        jobs = [(mutant.path, golden_inputs(models[mutant.name])[:RUNS]) for mutant in known]
        for mutant, result in zip(known, oracle.run_many(jobs), strict=True):
            shapes = [one.shape for one in expected[mutant.name][0]]
            if not result.refusal and [one.shape for one in result.outputs[0]] == shapes:
                expected[mutant.name] = list(result.outputs)
                compared.add(mutant.name)
    return expected, compared


def real_models(assets: Path) -> dict[str, bytes]:
    """Return name -> content of the real models."""
    return {name: (assets / "models" / file).read_bytes() for name, file in MODELS.items()}


def generated_models(folder: Path, seed: int) -> dict[str, bytes]:
    """Return kind -> content of one generated model of every kind of the conformance sweep."""
    return {case.operator.lower(): case.path.read_bytes() for case in cases(folder, each=1, seed=seed)}


def mutants(folder: Path, models: Mapping[str, bytes], *, each: int, seed: int) -> Iterator[Mutant]:
    """Write `each` mutants of every model by both mutators; the same ones for the same seed."""
    for model, content in models.items():
        is_weight = _weights_of(content)
        for number in range(each):
            for kind in ("bytes", "fields"):
                draw = np.random.default_rng([seed, number, *model.encode(), len(kind)])
                changed = (
                    _bytes_changed(draw, content, is_weight)
                    if kind == "bytes"
                    else _fields_changed(draw, content)
                )
                if changed is None:
                    continue
                path = folder / f"{model}_{kind}_{number}.tflite"
                path.write_bytes(changed)
                yield Mutant(name=path.stem, kind=f"{model} {kind}", path=path)


def _weights_of(content: bytes) -> np.ndarray:
    """Return bool [bytes]: True within a buffer of more than 32 bytes."""
    found = np.zeros(len(content), dtype=bool)
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if not isinstance(data, int) and len(data) > 32:
            start = content.find(data.tobytes())
            found[start : start + len(data)] = True
    return found


def _bytes_changed(draw: Draw, content: bytes, is_weight: np.ndarray) -> bytes:
    changed = bytearray(content)
    places = np.flatnonzero(~is_weight)
    for place in places[draw.integers(0, len(places), int(draw.integers(1, 5)))]:
        if draw.random() < 0.5:
            changed[place] = int(draw.integers(0, 256))
        else:
            changed[place] = (changed[place] + int(draw.choice([-1, 1, 4, 128]))) % 256
    if draw.random() < 0.1:
        del changed[int(draw.integers(8, len(changed))) :]
    return bytes(changed)


def _fields_changed(draw: Draw, content: bytes) -> bytes | None:
    """Return the model with one to three fields changed, or nothing where it cannot be written any more."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for _ in range(int(draw.integers(1, 4))):
        _MUTATIONS[int(draw.integers(0, len(_MUTATIONS)))](draw, model)
    builder = Builder(len(content))
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except Exception:  # values that the format has no room for
        return None
    return bytes(builder.Output())


def _number(draw: Draw, old: int) -> int:
    """Return a number near `old`, or at an edge."""
    near = [old - 1, old + 1, old * 2, old // 2, -old]
    edges = [0, 1, -1, 2, 3, 127, 128, 255, 65535, _LARGEST_NUMBER, -_LARGEST_NUMBER - 1]
    return int(np.clip(int(draw.choice(near if draw.random() < 0.6 else edges)), -(2**31), _LARGEST_NUMBER))


def _tensor(draw: Draw, model: schema.ModelT) -> schema.TensorT:
    tensors = model.subgraphs[0].tensors
    return tensors[int(draw.integers(0, len(tensors)))]


def _operator(draw: Draw, model: schema.ModelT) -> schema.OperatorT:
    operators = model.subgraphs[0].operators
    return operators[int(draw.integers(0, len(operators)))]


def _change_shape(draw: Draw, model: schema.ModelT) -> None:
    tensor = _tensor(draw, model)
    shape = [int(size) for size in (tensor.shape if tensor.shape is not None else [])]
    way = draw.random()
    if way < 0.6 and shape:
        at = int(draw.integers(0, len(shape)))
        shape[at] = _number(draw, shape[at])
    elif way < 0.8:
        shape.insert(int(draw.integers(0, len(shape) + 1)), int(draw.choice([1, 1, 2])))
    elif shape:
        del shape[int(draw.integers(0, len(shape)))]
    tensor.shape = np.asarray(shape, dtype=np.int32)


def _change_type(draw: Draw, model: schema.ModelT) -> None:
    _tensor(draw, model).type = int(draw.integers(0, 20))


def _change_variable(draw: Draw, model: schema.ModelT) -> None:
    tensor = _tensor(draw, model)
    tensor.isVariable = not tensor.isVariable


def _change_scale(draw: Draw, model: schema.ModelT) -> None:
    table = _tensor(draw, model).quantization
    if table is None or table.scale is None or len(table.scale) == 0:
        return
    scales = np.array(table.scale, dtype=np.float32)
    if draw.random() < 0.2:
        scales = scales[: int(draw.integers(0, len(scales) + 1))]
    else:
        choices = [0.0, -1.0, 1e-30, 1e30, np.inf, np.nan, 1e-8, 1e4, 0.5, 3.0]
        scales[int(draw.integers(0, len(scales)))] *= np.float32(draw.choice(choices))
    table.scale = scales


def _change_zero(draw: Draw, model: schema.ModelT) -> None:
    table = _tensor(draw, model).quantization
    if table is None or table.zeroPoint is None or len(table.zeroPoint) == 0:
        return
    zeros = np.array(table.zeroPoint, dtype=np.int64)
    choices = [0, -128, 127, 128, -129, 255, 2**31, -(2**40), 5]
    zeros[int(draw.integers(0, len(zeros)))] = int(draw.choice(choices))
    table.zeroPoint = zeros


def _change_axis(draw: Draw, model: schema.ModelT) -> None:
    table = _tensor(draw, model).quantization
    if table is not None:
        table.quantizedDimension = int(draw.choice([-1, 0, 1, 2, 3, 4, 100]))


def _change_wire(draw: Draw, model: schema.ModelT) -> None:
    operator = _operator(draw, model)
    name = "inputs" if draw.random() < 0.7 else "outputs"
    wires = np.array(getattr(operator, name), dtype=np.int32)
    if len(wires):
        count = len(model.subgraphs[0].tensors)
        wires[int(draw.integers(0, len(wires)))] = int(draw.integers(-1, count + (draw.random() < 0.1)))
    setattr(operator, name, wires if draw.random() < 0.9 else wires[:-1])


def _change_option(draw: Draw, model: schema.ModelT) -> None:
    options = _operator(draw, model).builtinOptions
    if options is None:
        return
    names = [name for name, value in vars(options).items() if isinstance(value, (int, float, bool))]
    if not names:
        return
    name = names[int(draw.integers(0, len(names)))]
    old = getattr(options, name)
    setattr(
        options,
        name,
        float(draw.choice([-1, 0, 1e30])) if isinstance(old, float) else _number(draw, int(old)),
    )


def _change_code(draw: Draw, model: schema.ModelT) -> None:
    code = model.operatorCodes[int(draw.integers(0, len(model.operatorCodes)))]
    code.builtinCode = int(draw.integers(0, 160))
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)


def _change_order(draw: Draw, model: schema.ModelT) -> None:
    operators = model.subgraphs[0].operators
    at = [int(draw.integers(0, len(operators))) for _ in range(2)]
    way = draw.random()
    if way < 0.4:
        operators[at[0]], operators[at[1]] = operators[at[1]], operators[at[0]]
    elif way < 0.6:
        operators.insert(at[0], operators[at[1]])
    elif len(operators) > 1:
        del operators[at[0]]


def _change_ends(draw: Draw, model: schema.ModelT) -> None:
    graph = model.subgraphs[0]
    name = "inputs" if draw.random() < 0.5 else "outputs"
    ends = [int(one) for one in getattr(graph, name)]
    way = draw.random()
    if way < 0.6:
        ends.append(int(draw.integers(0, len(graph.tensors))))
    elif way < 0.8:
        ends[0] = int(draw.integers(0, len(graph.tensors)))
    else:
        ends = ends * 2
    setattr(graph, name, np.asarray(ends, dtype=np.int32))


def _change_buffer(draw: Draw, model: schema.ModelT) -> None:
    buffer = model.buffers[int(draw.integers(0, len(model.buffers)))]
    if buffer.data is None or isinstance(buffer.data, int) or len(buffer.data) == 0:
        _tensor(draw, model).buffer = int(draw.integers(0, len(model.buffers)))
        return
    data = np.array(buffer.data, dtype=np.uint8)
    way = draw.random()
    if way < 0.4:
        data[draw.integers(0, len(data), 8)] = draw.integers(0, 256, 8)
    elif way < 0.6:
        data[:] = int(draw.choice([0, 127, 128, 255]))
    else:
        data = data[: int(draw.integers(0, len(data)))]
    buffer.data = data


_MUTATIONS = (
    _change_shape, _change_shape, _change_type, _change_variable, _change_scale, _change_scale, _change_zero,
    _change_axis, _change_wire, _change_wire, _change_option, _change_option, _change_code, _change_order,
    _change_ends, _change_buffer, _change_buffer,
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
