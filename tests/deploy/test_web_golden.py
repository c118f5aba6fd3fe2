"""The self-test of a web bundle calls the same things equal and different as `deploy.golden` does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewright.core.tensors import Array
from edgewright.deploy import golden
from edgewright.deploy.golden import compare_result, compare_tensor

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
_SIDE = 100
_SCRIPT = """
import { readFile } from "node:fs/promises";
const job = JSON.parse(await readFile(process.argv[2], "utf-8"));
const { compareResult, compareTensor } = await import(job.golden);
const { arrayClass } = await import(job.core);
const read = ({ dtype, shape, data }) => ({ dtype, shape, data: new (arrayClass(dtype))(new Uint8Array(data).buffer) });
const said = job.pairs.map(({ kind, want, got }) => {
  const wanted = { ...read(want), kind, name: "x" };
  if (kind) return compareResult(wanted, read(got), job.side, job.tolerances);
  return compareTensor(wanted, read(got).data, job.tolerances);
});
console.log(JSON.stringify(said));
"""


def floats(values: list[float]) -> NDArray[np.float32]:
    """Return values as float32."""
    return np.array(values, np.float32)


def pairs() -> list[tuple[str, Array, Array]]:
    """Return kind of result (none for a tensor), wanted and made; some are near enough and some are not."""
    generator = np.random.default_rng(4)
    tensor = generator.standard_normal((2, 5)).astype(np.float32)
    classes = np.array([[2, 0.5], [1, 0.3]], np.float32)
    boxes = np.array([[10, 10, 60, 60, 0.9, 1], [1, 2, 3, 4, 0.5, 0]], np.float32)
    points = np.array([[10, 20, 0.9], [30, 40, 0.8]], np.float32)
    mask = (np.arange(400) % 3).astype(np.uint8).reshape(20, 20)
    spoiled, worse = mask.copy(), mask.copy()
    spoiled[0, :4] = 9
    worse[0, :5] = 9
    numbers = np.array([[1.0, -20.0]], np.float32)
    stream = np.stack([classes, classes])
    steps = np.arange(6, dtype=np.int8)
    wide = np.array([1 << 40, -3], np.int64)
    return [
        ("", tensor, tensor + np.float32(5e-6)),
        ("", tensor, tensor + np.float32(5e-5)),
        ("", tensor, tensor * np.nan),
        ("", 100 * tensor, 100 * tensor + np.float32(5e-4)),
        ("", tensor, tensor[:1]),
        ("", tensor, tensor.view(np.int32)),
        ("", steps, steps + np.int8(1)),
        ("", steps, steps + np.int8(2)),
        ("", wide, wide + 1),
        ("", wide, wide + 2),
        ("classes", classes, classes + floats([0, 0.019])),
        ("classes", classes, classes + floats([0, 0.021])),
        ("classes", classes, classes[::-1]),
        ("classes", classes, classes[:1]),
        ("classes", stream, stream + floats([0, 0.03])),
        ("boxes", boxes, boxes + floats([1.9, 0, 0, -1.9, 0.01, 0])),
        ("boxes", boxes, boxes + floats([2.1, 0, 0, 0, 0, 0])),
        ("boxes", boxes, boxes + floats([0, 0, 0, 0, 0, 1])),
        ("boxes", boxes[:0], boxes[:0]),
        ("boxes", boxes, boxes * np.float32("nan")),
        ("keypoints", points, points + floats([1.9, -1.9, 0.01])),
        ("keypoints", points, points + floats([0, 2.1, 0])),
        ("mask", mask, spoiled),
        ("mask", mask, worse),
        ("codes", np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int32)),
        ("codes", np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int32)[::-1]),
        ("tensor", numbers, numbers + np.float32(0.39)),
        ("tensor", numbers, numbers + np.float32(0.41)),
        ("audio", numbers[0], numbers[0]),
        ("audio", numbers[0], numbers),
    ]


def array(values: Array) -> dict[str, object]:
    """Return an array as the script reads it."""
    return {"dtype": str(values.dtype), "shape": list(values.shape), "data": list(values.tobytes())}


def test_both_say_the_same(tmp_path: Path, repo_root: Path) -> None:
    lib = repo_root / "src/edgewright/deploy/templates/web/lib"
    rows = [{"kind": kind, "want": array(want), "got": array(got)} for kind, want, got in pairs()]
    tolerances = {
        "tensor": golden.TENSOR_TOLERANCE,
        "tensor_steps": golden.TENSOR_STEPS,
        "score": golden.SCORE_TOLERANCE,
        "box": golden.BOX_TOLERANCE,
        "mask_agreement": golden.MASK_AGREEMENT,
        "value": golden.VALUE_TOLERANCE,
    }
    job = {
        "golden": (lib / "golden.js").as_uri(),
        "core": (lib / "core.js").as_uri(),
        "side": _SIDE,
        "tolerances": tolerances,
        "pairs": rows,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    (tmp_path / "run.mjs").write_text(_SCRIPT)
    command = ["node", str(tmp_path / "run.mjs"), str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    verdicts = json.loads(done.stdout)
    wrong = []
    for (kind, want, got), said in zip(pairs(), verdicts, strict=True):
        ours = compare_result("x", kind, want, got, side=_SIDE) if kind else compare_tensor("x", want, got)
        if bool(ours) != bool(said):
            wrong.append((kind, ours, said))
    assert not wrong
    assert 10 < sum(bool(said) for said in verdicts) < len(verdicts) - 8
