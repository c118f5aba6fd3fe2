"""The Fashion-MNIST example: runs as a user runs it, on IDX files that the test writes."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.toolchain("torch", "safetensors")

CLASSES = 10
TRAIN_IMAGES = 640
EVAL_IMAGES = 100


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def write_dataset(folder: Path, rng: np.random.Generator) -> None:
    """Write noisy images whose class is the place of a bright bar: a few steps suffice to learn them."""
    folder.mkdir()
    for prefix, count in (("train", TRAIN_IMAGES), ("t10k", EVAL_IMAGES)):
        labels = np.arange(count, dtype=np.uint8) % CLASSES
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row = 4 + 2 * int(label)
            image[row : row + 2, 6:22] = 255
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)


def run_train(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = root / "examples" / "fashion_mnist" / "train.py"
    command = [sys.executable, "-W", "error", str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def dataset(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "idx"
    write_dataset(folder, rng)
    return folder


@pytest.mark.slow
def test_training_writes_files_that_belong_together(repo_root: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_train(
        repo_root, "--data", dataset, "--out", out, "--epochs", "2", "--seed", "3", "--threads", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "s left" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "eval.npz",
        "calibration.npz",
        "metrics.json",
    }
    evaluation, calibration = np.load(out / "eval.npz"), np.load(out / "calibration.npz")
    assert evaluation["inputs"].shape == (EVAL_IMAGES, 1, 28, 28)
    assert evaluation["inputs"].dtype == np.float32
    assert evaluation["inputs"].max() == 1.0
    assert evaluation["labels"].dtype == np.int64
    assert calibration["inputs"].shape == (512, 1, 28, 28)
    seen = {image.tobytes() for image in evaluation["inputs"]}
    assert not any(image.tobytes() in seen for image in calibration["inputs"])

    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["recipe"]["seed"] == 3
    # The reported accuracy is the one that the written weights have on the written data, read by a fresh
    # process under the name that a user passes to `edgewright build`.
    code = (
        "import sys, numpy, torch; from safetensors.torch import load_file;"
        "from examples.fashion_mnist.model import create; model = create();"
        "model.load_state_dict(load_file(sys.argv[1] + '/model.safetensors'));"
        "data = numpy.load(sys.argv[1] + '/eval.npz');"
        "hits = model(torch.from_numpy(data['inputs'])).argmax(1).numpy() == data['labels'];"
        "print(float(hits.mean()))"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True, cwd=repo_root
    )
    assert float(fresh.stdout) == pytest.approx(metrics["top1"], abs=1e-9)


def test_missing_data_is_one_line_and_exit_code_2(repo_root: Path, tmp_path: Path) -> None:
    done = run_train(repo_root, "--data", tmp_path / "nothing", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda packed: packed[: len(packed) // 2], "not a complete gzip file"),
        (lambda packed: gzip.compress(gzip.decompress(packed)[:-1]), "its header says"),
        (lambda packed: gzip.compress(b"\x00\x00\x0d" + gzip.decompress(packed)[3:]), "expected an IDX file"),
        (lambda packed: gzip.compress(gzip.decompress(packed)[:9]), "ends inside its IDX header"),
    ],
    ids=["truncated-gzip", "one-byte-short", "float-type", "header-only"],
)
def test_damaged_idx_is_refused(dataset: Path, example_train: object, damage: object, expected: str) -> None:
    path = dataset / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=expected):
        example_train.read_split(dataset, "t10k")  # type: ignore[attr-defined]


def test_labels_that_do_not_match_are_refused(dataset: Path, example_train: object) -> None:
    write_idx(dataset / "train-labels-idx1-ubyte.gz", np.zeros(TRAIN_IMAGES - 1, np.uint8))
    with pytest.raises(ValueError, match="expected \\[N, 28, 28\\] and \\[N\\]"):
        example_train.read_split(dataset, "train")  # type: ignore[attr-defined]


def test_augmentation_mirrors_about_half_and_shifts_by_at_most_two(example_train: object) -> None:
    import torch

    images = torch.zeros(1000, 1, 28, 28)
    images[:, 0, 10, 5] = 1.0
    moved = example_train.augment(images, torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(1000))
    rows, columns = moved.nonzero()[:, 2], moved.nonzero()[:, 3]
    assert set(rows.tolist()) == {8, 9, 10, 11, 12}
    assert set(columns.tolist()) == {3, 4, 5, 6, 7, 20, 21, 22, 23, 24}
    assert 400 < int((columns > 14).sum()) < 600


@pytest.fixture
def example_train(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the example's training script as a module, imported as its own folder sees it."""
    import importlib

    monkeypatch.syspath_prepend(str(repo_root / "examples" / "fashion_mnist"))
    # The script sets the OpenMP wait policy for its own process; setenv restores it after the test.
    monkeypatch.setenv("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY", "passive"))
    for name in ("train", "model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("train")
    for name in ("train", "model"):
        monkeypatch.delitem(sys.modules, name)
    return module
