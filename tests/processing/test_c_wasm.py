"""The C core as WebAssembly gives the bits that the machine's own compiler gives, and refuses what does not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.processing.c_cases import Both, Row, both, finishing, needs_compiler, preparing

from edgewright.core.errors import UnavailableError
from edgewright.core.tensors import Array, Arrays
from edgewright.processing.c_wasm import build_wasm, missing_tools
from edgewright.processing.specification import RawInput

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(bool(missing_tools()), reason="clang or lld is not installed"),
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
]
CLIP = RawInput(name="clip", kind="audio", rate_hz=16_000)
SPECTRUM: tuple[Row, ...] = (
    {"step": "fit_length", "samples": 8000},
    {"step": "frame", "length": 480, "hop": 320, "window": "hann"},
    {"step": "fft", "size": 512},
    {"step": "magnitude"},
    {"step": "mel", "bins": 40, "low_hz": 20.0, "high_hz": 4000.0},
    {"step": "log", "floor": 1e-6},
)
# What a wrapper does in a browser, with files instead of addresses.
_SCRIPT = """
import { readFile, writeFile } from "node:fs/promises";
const job = JSON.parse(await readFile(process.argv[2], "utf-8"));
const { Core } = await import(job.core);
const { instance } = await WebAssembly.instantiate(await readFile(job.module), {});
const core = new Core(instance.exports, job.function);
const raw = await readFile(job.raw);
const said = [];
for (const image of job.images) {
  try {
    core.begin();
    if (image) core.setImage(0, { ...image, data: new Uint8Array(raw) });
    else core.setSamples(0, new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4));
    core.prepare(0);
    await writeFile(job.prepared, core.input(0, 0, "uint8", job.inputBytes));
    for (const [index, { file, bytes }] of job.outputs.entries()) {
      core.output(0, index, "uint8", bytes).set(await readFile(file));
    }
    core.finish(0);
    const { data, dtype, shape } = core.result(0);
    await writeFile(job.result, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    said.push({ dtype, shape });
  } catch (error) {
    said.push({ error: error.message, code: error.code });
  }
}
console.log(JSON.stringify(said));
"""


def in_node(
    pair: Both,
    folder: Path,
    repo_root: Path,
    raw: Array,
    outputs: Arrays,
    images: Sequence[dict[str, object] | None],
) -> tuple[list[dict[str, object]], bytes, bytes]:
    """Return what is said of each run, the bytes of the model's input, and those of the result, of the last one."""
    module = build_wasm(pair.c.core, folder / "core.wasm")
    (folder / "run.mjs").write_text(_SCRIPT)
    rows = []
    for index, array in enumerate(outputs.values()):
        (folder / f"{index}.bin").write_bytes(np.ascontiguousarray(array).tobytes())
        rows.append({"file": str(folder / f"{index}.bin"), "bytes": array.nbytes})
    (folder / "raw.bin").write_bytes(raw.tobytes())
    job = {
        "core": (repo_root / "src/edgewright/deploy/templates/web/lib/core.js").as_uri(),
        "module": str(module),
        "function": f"{pair.c.core.name}_processing",
        "raw": str(folder / "raw.bin"),
        "images": list(images),
        "inputBytes": pair.c.tensor(0, 0).nbytes,
        "outputs": rows,
        "prepared": str(folder / "prepared.bin"),
        "result": str(folder / "result.bin"),
    }
    (folder / "job.json").write_text(json.dumps(job))
    for name in ("prepared.bin", "result.bin"):
        (folder / name).touch()
    command = ["node", str(folder / "run.mjs"), str(folder / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    prepared, result = ((folder / name).read_bytes() for name in ("prepared.bin", "result.bin"))
    return json.loads(done.stdout), prepared, result


def test_boxes_of_an_image_have_the_same_bits(
    tmp_path: Path, repo_root: Path, rng: np.random.Generator
) -> None:
    rows: list[Row] = [
        {"step": "join_boxes", "format": "cxcywh"},
        {"step": "nms", "iou": 0.4, "score": 0.3, "limit": 40},
        {"step": "to_source"},
    ]
    prepare: list[Row] = [{"step": "letterbox", "height": 64, "width": 96}]
    checked = finishing(
        {"a": ((200, 4), "float32"), "b": ((200, 3), "float32")}, rows, prepare=prepare, shape=(64, 96, 3)
    )
    pair = both(checked, tmp_path)
    picture = rng.integers(0, 256, (121, 93, 3), dtype=np.uint8)
    outputs = {"a": rng.uniform(5, 60, (200, 4)).astype(np.float32), "b": rng.random((200, 3), np.float32)}
    image: dict[str, object] = {"width": 93, "height": 121, "format": "rgb"}
    # The second run finds the memory as the first left it.
    said, prepared, result = in_node(pair, tmp_path, repo_root, picture, outputs, [image, image])
    assert prepared == pair.prepared({"image": picture})[1].tobytes()
    _, wanted = pair.finished({"image": picture}, outputs)
    assert len(wanted) > 5
    assert said == [{"dtype": "float32", "shape": list(wanted.shape)}] * 2
    assert result == wanted.tobytes()


def test_a_spectrum_has_the_same_bits(tmp_path: Path, repo_root: Path, rng: np.random.Generator) -> None:
    pair = both(preparing(CLIP, SPECTRUM, (24, 40)), tmp_path)
    clip = (0.1 * rng.standard_normal(9001)).astype(np.float32)
    outputs = {"y": np.arange(3, dtype=np.float32)}
    _, prepared, result = in_node(pair, tmp_path, repo_root, clip, outputs, [None])
    assert prepared == pair.prepared({"clip": clip})[1].tobytes()
    assert np.frombuffer(result, np.float32).tolist() == [0, 1, 2]


def test_pixels_that_do_not_fit_are_refused(tmp_path: Path, repo_root: Path) -> None:
    raw = RawInput(name="image", kind="image")
    rows: list[Row] = [{"step": "resize", "height": 8, "width": 8}]
    pair = both(preparing(raw, rows, (8, 8, 3), "uint8"), tmp_path)
    wrong: list[tuple[dict[str, object], str]] = [
        ({"width": 93, "height": 121, "format": "rgba"}, "93x121 has 33759 bytes, but 45012 are expected"),
        ({"width": 0, "height": 121, "format": "rgb"}, "a size is 0"),
        ({"width": 93, "height": 121, "format": "cmyk"}, "no format of pixels"),
        ({"width": 93, "height": 121, "format": "rgb", "rotation": 45}, "rotation"),
        ({"width": 1 << 20, "height": 1 << 20, "format": "rgb"}, "are expected"),
        ({"width": 121, "height": 93, "format": "rgb", "rowBytes": 370}, "are expected"),
        ({"width": -5, "height": -5, "format": "rgb"}, "a size is 0"),
    ]
    picture = np.zeros((121, 93, 3), np.uint8)
    said, _, _ = in_node(pair, tmp_path, repo_root, picture, {}, [image for image, _ in wrong])
    for row, (image, message) in zip(said, wrong, strict=True):
        assert message in str(row["error"]), (image, row)


def test_a_missing_compiler_is_said(tmp_path: Path) -> None:
    pair = both(preparing(CLIP, [{"step": "fit_length", "samples": 4}], (4,)), tmp_path)
    with pytest.raises(UnavailableError, match="apt-get install -y clang lld"):
        build_wasm(pair.c.core, tmp_path / "core.wasm", clang="clang-of-nowhere")
