"""The shipped digits sample: files that load, the stated accuracy, a clean split, a small package."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewright import sample

STATED_CORRECT = 594
PACKAGE_LIMIT_BYTES = 400_000


def load_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        assert set(content.files) == {"inputs", "labels"}
        return content["inputs"], content["labels"]


def image_digests(inputs: np.ndarray) -> set[str]:
    return {hashlib.sha256(image.tobytes()).hexdigest() for image in inputs}


@pytest.mark.parametrize(("path", "count"), [(sample.EVAL_DATA, 597), (sample.CALIBRATION_DATA, 1200)])
def test_data_has_the_promised_arrays(path: Path, count: int) -> None:
    inputs, labels = load_npz(path)
    assert inputs.shape == (count, *sample.INPUT_SHAPE[1:])
    assert inputs.dtype == np.float32
    assert labels.shape == (count,)
    assert labels.dtype == np.int64
    assert inputs.min() == 0.0
    assert inputs.max() == 1.0
    # Grey levels 0..16, divided by 16: nothing else may have happened to the published images.
    assert np.array_equal(inputs * 16, np.round(inputs * 16))
    shares = np.bincount(labels, minlength=10) / count
    assert len(shares) == 10
    assert shares.min() > 0.09
    assert shares.max() < 0.11


def test_no_evaluation_image_is_in_the_training_part() -> None:
    evaluation, _ = load_npz(sample.EVAL_DATA)
    training, _ = load_npz(sample.CALIBRATION_DATA)
    assert len(image_digests(training)) == len(training)
    assert not image_digests(evaluation) & image_digests(training)


@pytest.mark.toolchain("sklearn")
def test_both_parts_are_the_published_digits_and_the_split_of_the_script() -> None:
    from edgewright.sample.train import load_splits

    training, evaluation = load_splits()
    for path, split in ((sample.CALIBRATION_DATA, training), (sample.EVAL_DATA, evaluation)):
        inputs, labels = load_npz(path)
        assert np.array_equal(inputs, split.inputs)
        assert np.array_equal(labels, split.labels)


def test_package_files_stay_small() -> None:
    folder = sample.WEIGHTS.parent
    shipped = [path for path in folder.iterdir() if path.is_file()]
    assert {sample.WEIGHTS, sample.EVAL_DATA, sample.CALIBRATION_DATA} <= set(shipped)
    assert sum(path.stat().st_size for path in shipped) < PACKAGE_LIMIT_BYTES


def test_importing_the_sample_loads_no_vendor_library() -> None:
    code = (
        "import sys, edgewright.sample, edgewright.sample.digits, edgewright.sample.train;"
        "vendors = {'torch', 'sklearn', 'safetensors', 'onnx', 'onnxruntime', 'openvino'};"
        "print(sorted(vendors & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.toolchain("torch", "safetensors")
def test_weights_reach_the_stated_accuracy_on_the_shipped_evaluation_part() -> None:
    import importlib

    import torch
    from safetensors.torch import load_file

    module, _, factory = sample.MODEL.partition(":")
    model = getattr(importlib.import_module(module), factory)()
    assert not model.training
    model.load_state_dict(load_file(sample.WEIGHTS), strict=True)
    inputs, labels = load_npz(sample.EVAL_DATA)
    with torch.inference_mode():
        logits = model(torch.from_numpy(inputs))
    assert logits.shape == (597, 10)
    assert logits.dtype == torch.float32
    assert int((logits.argmax(1).numpy() == labels).sum()) == STATED_CORRECT
    readme = (sample.WEIGHTS.parent / "README.md").read_text(encoding="utf-8")
    assert f"{STATED_CORRECT} of {len(labels)}" in readme


@pytest.mark.toolchain("torch", "sklearn")
def test_training_learns_and_repeats_with_the_same_seed() -> None:
    import torch

    from edgewright.sample.train import accuracy, load_splits, train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training, evaluation = load_splits()
        first, second = train(training, epochs=6), train(training, epochs=6)
    finally:
        torch.set_num_threads(threads)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    # Six of the sixty epochs: not the stated accuracy yet, but far from chance (0.1).
    assert accuracy(first, evaluation) > 0.8


@pytest.mark.toolchain("torch")
def test_shifting_moves_whole_images_by_at_most_one_pixel() -> None:
    import torch

    from edgewright.sample.train import shifted

    images = torch.zeros(200, 1, 8, 8)
    images[:, 0, 4, 3] = 1.0
    moved = shifted(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(200))
    places = {(int(row), int(column)) for _, _, row, column in moved.nonzero()}
    assert places == {(row, column) for row in (3, 4, 5) for column in (2, 3, 4)}
