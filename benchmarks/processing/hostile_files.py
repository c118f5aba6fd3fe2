"""Hostile files through `load`, the command `predict`, and the C core: all must say the same, and the right thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.processing.hostile_cases import Case, Tally, unclear, watched
from benchmarks.processing.hostile_images import images
from benchmarks.processing.hostile_sounds import NUMBERS, RATE_HZ, arrays, labels, sounds

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.prediction import load
from edgewright.processing.c_host import CProcessor
from edgewright.processing.c_program import COptions
from edgewright.processing.planning import plan
from edgewright.processing.processor import Processor
from edgewright.processing.registry import read_step
from edgewright.processing.results import Values
from edgewright.processing.signature import Signature
from edgewright.processing.specification import (
    Flow,
    RawInput,
    ResultFlow,
    Specification,
    read_specification,
    write_specification,
)
from edgewright.processing.step import Step

Rows = Sequence[Mapping[str, object]]
_IMAGE: Rows = (
    {"step": "resize", "height": 8, "width": 8}, {"step": "normalize"}, {"step": "layout", "layout": "chw"},
)  # fmt: skip
_SOUND: Rows = ({"step": "fit_length", "samples": 1600},)
_PRE = {"image": 255.0, "audio": 1.0, "series": 1.0}  # what a step of a raw value is to a prepared one


def files(assets: Path, work: Path, tally: Tally) -> None:
    """Run all files; `assets` holds the good ones that some are made of."""
    image = RawInput(name="image", kind="image")
    clip = RawInput(name="clip", kind="audio", rate_hz=RATE_HZ)
    numbers = RawInput(name="numbers", kind="series", shape=NUMBERS.shape)
    _run(_model(work / "image", image, _IMAGE, (3, 8, 8)), images(assets), tally)
    _run(_model(work / "sound", clip, _SOUND, (1600,)), sounds(assets), tally)
    _run(_model(work / "numbers", numbers, (), NUMBERS.shape), arrays(), tally)
    _run_labels(_model(work / "labels", numbers, (), NUMBERS.shape), tally)


def command(*arguments: object) -> tuple[int, str, str]:
    """Return the exit code, what is printed and what is said by the command line in a process of its own."""
    code = "from edgewright.cli.main import run_and_exit; run_and_exit()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def _model(folder: Path, raw: RawInput, rows: Rows, shape: tuple[int, ...]) -> Path:
    """Write a model that gives back what it gets, and its processing; return the model's file."""
    from onnx import TensorProto, helper, save

    folder.mkdir()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", ends[:1], ends[1:])
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(folder / "m.onnx"),
    )
    steps: tuple[Step, ...] = tuple(read_step(dict(row), what="benchmark") for row in rows)
    specification = Specification(
        task="other",
        inputs=(raw,),
        tensors=(Flow(name="x", sources=(raw.name,), steps=steps),),
        results=(ResultFlow(name="same", sources=("y",)),),
    )
    write_specification(specification, folder)
    return folder / "m.onnx"


def _run(model: Path, cases: Iterable[Case], tally: Tally) -> None:
    written = []
    for case in cases:
        path = model.parent / "in" / case.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(case.content)
        written.append((case, path))
    refused = _through_load(model, written, tally)
    _through_command(model, written, refused, tally)


def _through_load(model: Path, written: Sequence[tuple[Case, Path]], tally: Tally) -> set[Path]:
    """Run each file by `load` and by the C core; return those that were refused."""
    specification = read_specification(model.parent)
    (row,), refused = specification.inputs, set()
    with load(model) as predictor:
        reference = Processor(predictor.plan)
        core = CProcessor(
            predictor.plan,
            model.parent / "c",
            options=COptions(max_side=16_384, max_rows=1 << 20),
            flags=("-std=c99", "-O0", "-ffp-contract=off"),
        )
        for case, path in written:
            made = None
            before = tally.counts.get(case.kind, {}).get("refused", 0)
            with watched(tally, case.kind, case.name):
                raw = predictor.read({row.name: path})
                made = predictor(path)["same"]
                assert isinstance(made, Values)
                core.set_inputs(raw)
                in_c = next(iter(core.prepare().values()))
                wanted = _wanted(case, raw[row.name], reference, row.name)
                apart = (
                    min((float(np.abs(one - made.array).max()) for one in wanted), default=0.0)
                    * _PRE[row.kind]
                )
                if case.must == "refused" or apart > case.tolerance + 1e-4:
                    tally.add_bad(case.kind, f"{case.name} was taken, {apart} apart")
                elif not np.allclose(in_c[0], made.array, rtol=0, atol=1e-5):
                    tally.add_bad(case.kind, f"{case.name}: C is another than numpy")
                else:
                    tally.add(case.kind, "right")
            if tally.counts[case.kind]["refused"] > before:
                refused.add(path)
                if case.must == "right":
                    tally.counts[case.kind]["refused"] -= 1
                    tally.add_bad(case.kind, f"{case.name} was refused, but is good")
    return refused


def _wanted(case: Case, raw: object, reference: Processor, name: str) -> list[Array]:
    """Return what the model may be given; of an image as it is meant, or also turned where its EXIF is broken."""
    arrays_ = [case.wanted] if case.wanted is not None else []
    if case.must == "any":
        arrays_ = [np.asarray(raw)]
    if case.must == "turned":
        assert case.wanted is not None
        arrays_ = [np.rot90(way, turn) for way in (case.wanted, case.wanted[:, ::-1]) for turn in range(4)]
    dtype = np.uint8 if np.asarray(raw).dtype == np.uint8 else np.float32
    return [
        next(iter(reference.prepare({name: np.ascontiguousarray(array.astype(dtype))}).values()))[0]
        for array in arrays_
    ]


def _through_command(
    model: Path, written: Sequence[tuple[Case, Path]], refused: set[Path], tally: Tally
) -> None:
    """Give the command the same files, many at once; it must refuse the same ones, and go on."""
    for first in range(0, len(written), 200):
        paths = [path for _, path in written[first : first + 200]]
        code, printed, said = command("predict", model, *paths, "--json")
        kind = "by the command"
        failed = {path for path in paths if path in refused}
        if code != (DataError.exit_code if failed else 0) or "Traceback" in said or "Warning" in said:
            tally.add_bad(kind, f"{model.parent.name}: it ended with {code}: {said[-300:]!r}")
            continue
        lines = printed.splitlines()
        if failed and json.loads(lines[-1])["error"] == DataError.__name__:
            lines.pop()  # what the command as a whole ends with
        if len(lines) != len(paths):
            tally.add_bad(
                kind, f"{model.parent.name}: {len(lines)} lines for {len(paths)} files: {printed[-300:]!r}"
            )
            continue
        for path, line in zip(paths, lines, strict=True):
            record = json.loads(line)
            if record["input"] != str(path) or ("error" in record) != (path in failed):
                tally.add_bad(kind, f"{path.name} is told as {line[:200]}")
            elif "error" in record and (unclear(record["error"]) or str(path) not in said):
                tally.add_bad(kind, f"{path.name} is told unclearly: {record['error']}")
            else:
                tally.add(kind, "refused" if path in failed else "right")


def _run_labels(model: Path, tally: Tally) -> None:
    """Give a classifier of 12 classes label files."""
    signature = Signature(
        inputs=(TensorSpec(name="x", shape=(1, *NUMBERS.shape), dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(1, *NUMBERS.shape), dtype="float32"),),
    )
    steps = tuple(
        read_step(row, what="it") for row in ({"step": "reshape", "shape": [12]}, {"step": "top_k"})
    )
    specification = read_specification(model.parent)
    result = replace(specification.results[0], steps=steps)
    specification = plan(replace(specification, results=(result,)), signature).specification
    write_specification(specification, model.parent)
    np.save(model.parent / "in.npy", NUMBERS)
    for case in labels(12):
        path = model.parent / case.name
        path.write_bytes(case.content)
        with watched(tally, case.kind, case.name), load(model, labels=path) as predictor:
            names = [label["name"] for label in predictor(NUMBERS).to_json()["same"]]  # type: ignore[index, union-attr]
            lines = path.read_text("utf-8-sig").splitlines()
            if case.must == "refused" or names != [lines[11 - n] for n in range(5)]:
                tally.add_bad(case.kind, f"{case.name} was taken")
            else:
                tally.add(case.kind, "right")
        code, _, said = command("predict", model, model.parent / "in.npy", "--labels", path)
        if code != (0 if case.must == "right" else 2) or "Traceback" in said:
            tally.add_bad("by the command", f"{case.name} ends with {code}: {said[-300:]}")
        else:
            tally.add("by the command", "refused" if code else "right")
