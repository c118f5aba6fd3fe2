"""What recipes name of the sample: the trained network and its two data sets as functions."""

from __future__ import annotations

import pytest

from edgewright.core.tensors import TensorSpec
from edgewright.data.datasets import load_dataset

SPEC = TensorSpec(name="input", shape=(None, 1, 8, 8), dtype="float32", layout="nchw")


@pytest.mark.parametrize(("name", "count"), [("training", 1200), ("evaluation", 597)])
def test_the_sets_are_loaded_by_name(name: str, count: int) -> None:
    found = load_dataset(f"edgewright.sample.data:{name}", [SPEC])
    assert found.count == count
    assert found.labels is not None and set(found.labels.tolist()) == set(range(10))


@pytest.mark.toolchain("torch")
def test_the_trained_network_knows_the_digits() -> None:
    import torch

    from edgewright.sample.data import evaluation
    from edgewright.sample.digits import trained

    images, labels = evaluation()
    with torch.inference_mode():
        guessed = trained()(torch.from_numpy(images)).argmax(1).numpy()
    assert (guessed == labels).mean() > 0.98
