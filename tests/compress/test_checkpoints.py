"""Checkpoints are whole or refused, and a killed training goes on with exactly the same weights."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewright.compress.checkpoints import Checkpoints, Reached, ResumableFit, state_of
from edgewright.compress.training import Trainer, TrainingOptions
from edgewright.core.errors import IntegrityError, TrainingError, UsageError
from edgewright.data.datasets import Dataset, make_dataset

pytestmark = pytest.mark.toolchain("torch")
EPOCHS = 6


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Train on one thread: the layers are tiny, and threads that wait for each other on a busy machine are slow."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_data() -> Dataset:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 256)
    images = rng.normal(size=(256, 1, 6, 6)).astype(np.float32)
    images[np.arange(256), 0, labels, labels] += 3
    return make_dataset({"x": images}, labels, description="four bright pixels")


def small_net(seed: int = 0):
    import torch
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 4)
    )


def trainer(optimizer: str = "sgd") -> Trainer:
    options = TrainingOptions(
        batch_size=32, optimizer=optimizer, learning_rate=0.01, augment="shift+flip", shift_pixels=1
    )
    return Trainer(small_data(), options)


def same(one, other) -> bool:
    import torch

    a, b = state_of(one), state_of(other)
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_gives_back_what_was_saved(tmp_path: Path) -> None:
    import torch

    tensors = {
        "half": torch.ones(2, 3, dtype=torch.float16),
        "turned": torch.arange(6).reshape(2, 3).T,
        "flag": torch.tensor(True),
        "empty": torch.zeros(0),
        "bfloat": torch.full((2,), 0.5, dtype=torch.bfloat16),
    }
    tensors["shared"] = tensors["turned"]
    kept = Checkpoints(tmp_path / "new")
    assert kept.load("step-1") is None
    kept.save("step-1", tensors, {"epoch": 3})
    loaded = kept.load("step-1")
    assert loaded is not None and loaded.record == {"epoch": 3}
    assert set(loaded.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype and torch.equal(loaded.tensors[name], tensor)
    kept.remove("step-1")
    assert kept.load("step-1") is None


def test_every_flipped_byte_and_every_truncation_is_found(tmp_path: Path) -> None:
    import torch

    kept = Checkpoints(tmp_path)
    path = kept.save("s", {"w": torch.arange(8.0), "n": torch.tensor(2)}, {"epoch": 1})
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :])
        with pytest.raises(IntegrityError, match="damaged"):
            kept.load("s")
    for count in range(0, len(whole), 7):
        path.write_bytes(whole[:count])
        with pytest.raises(IntegrityError, match="Delete this file"):
            kept.load("s")


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    import resource

    import torch

    kept = Checkpoints(tmp_path)
    kept.save("s", {"w": torch.zeros(2)}, {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # as a full disk
    try:
        with pytest.raises(UsageError, match=r"cannot write .*s\.safetensors.*File too large.*Free space"):
            kept.save("s", {"w": torch.ones(10_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    loaded = kept.load("s")
    assert loaded is not None and loaded.record == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 121])
def test_refuses_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a checkpoint"):
        Checkpoints(tmp_path).save(name, {}, {})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_stopped_training_gives_the_weights_of_one_that_was_not(
    tmp_path: Path, optimizer: str, epoch: int
) -> None:
    whole = small_net()
    ResumableFit(trainer(optimizer), None)("fine-tune", whole, EPOCHS)

    def stop(line: str, share: float | None) -> None:
        if line.startswith(f"epoch {epoch + 1}/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ResumableFit(trainer(optimizer), Checkpoints(tmp_path), stop)("fine-tune", small_net(), EPOCHS)
    lines: list[str] = []
    resumed = small_net()
    ResumableFit(trainer(optimizer), Checkpoints(tmp_path), lambda line, share: lines.append(line))(
        "fine-tune", resumed, EPOCHS
    )
    assert lines[0].startswith(f"epoch {epoch + 1}/{EPOCHS}")
    assert same(whole, resumed) and not same(whole, small_net())
    again = small_net()
    ResumableFit(trainer(optimizer), Checkpoints(tmp_path))("fine-tune", again, EPOCHS)
    assert same(whole, again)


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.compress.test_checkpoints import Checkpoints, ResumableFit, small_net, trainer
net = small_net()
ResumableFit(trainer(), Checkpoints(Path(sys.argv[1])), lambda line, share: print(line, flush=True))("s", net, 60)
print("done", flush=True)
"""


def test_a_killed_process_goes_on_with_the_same_weights(tmp_path: Path, repo_root: Path) -> None:

    rng = np.random.default_rng()
    runs = 0
    while True:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=repo_root
        )
        assert child.stdout is not None
        lines = []
        if (
            runs < 3
        ):  # die somewhere after a random epoch: in the next one, or while its checkpoint is written
            lines = [child.stdout.readline() for _ in range(int(rng.integers(1, 12)))]
            time.sleep(float(rng.uniform(0, 0.02)))
            child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0]
        runs += 1
        if "done\n" in lines or rest.endswith("done\n"):
            break
        assert child.returncode == -signal.SIGKILL
    assert runs == 4
    whole, resumed = small_net(), small_net()
    ResumableFit(trainer(), None)("s", whole, 60)
    ResumableFit(trainer(), Checkpoints(tmp_path))("s", resumed, 60)
    assert same(whole, resumed)
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.compress.test_checkpoints import Checkpoints, ResumableFit, add_one, small_net

def dies(module, epochs):
    add_one(module, epochs)
    os.kill(os.getpid(), signal.SIGKILL)

net, kept = small_net(), Checkpoints(Path(sys.argv[1]))
ResumableFit(add_one, kept)("step-1", net, 1)
dies.__module__, dies.__qualname__ = add_one.__module__, add_one.__qualname__
ResumableFit(dies, kept)("step-2", net, 1)
"""


def add_one(module, epochs: int) -> None:
    """Train nothing, visibly."""
    module[0].weight.data.add_(1)


def test_a_user_loop_that_is_killed_loses_only_its_own_stage(tmp_path: Path, repo_root: Path) -> None:
    import torch

    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=repo_root, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["step-1.safetensors"]
    net, calls = small_net(), []

    def counted(module, epochs: int) -> None:
        calls.append(epochs)
        add_one(module, epochs)

    counted.__module__, counted.__qualname__ = add_one.__module__, add_one.__qualname__
    fit = ResumableFit(counted, Checkpoints(tmp_path))
    fit("step-1", net, 1)
    fit("step-2", net, 1)
    assert calls == [1]  # the first stage was loaded
    assert torch.allclose(net[0].weight, small_net()[0].weight + 2)


def test_refuses_the_checkpoint_of_another_training(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    ResumableFit(trainer(), kept)("s", small_net(), 2)
    with pytest.raises(TrainingError, match=r"epochs 2, not 3"):
        ResumableFit(trainer(), kept)("s", small_net(), 3)
    with pytest.raises(TrainingError, match=r"optimizer 'sgd', not 'adamw'"):
        ResumableFit(trainer("adamw"), kept)("s", small_net(), 2)
    with pytest.raises(TrainingError, match="other starting weights"):
        ResumableFit(trainer(), kept)("s", small_net(seed=1), 2)
    with pytest.raises(TrainingError, match="seed 0, not 5"):
        ResumableFit(trainer(), kept, seed=5)("s", small_net(), 2)


def test_stages_and_seeds_differ() -> None:
    one, two, three = small_net(), small_net(), small_net()
    ResumableFit(trainer(), None)("a", one, 1)
    ResumableFit(trainer(), None)("b", two, 1)
    ResumableFit(trainer(), None, seed=1)("a", three, 1)
    assert not same(one, two) and not same(one, three)


def test_nan_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    import torch

    class Diverging:
        """Trains two good epochs, then one that leaves NaN."""

        def __call__(self, module: object, epochs: int) -> None:
            raise AssertionError

        def describe(self) -> dict[str, object]:
            return {}

        def train_epochs(self, module, epochs, *, salt, reached, keep, report) -> None:
            for epoch in range(reached.epochs if reached else 0, epochs):
                with torch.no_grad():
                    module[0].weight.fill_(epoch if epoch < 2 else float("nan"))
                keep(Reached(epochs=epoch + 1, tensors={"m/0": torch.tensor(epoch)}))

    kept = Checkpoints(tmp_path)
    with pytest.raises(TrainingError, match=r"epoch 3 of stage 's'.*'0\.weight' are NaN"):
        ResumableFit(Diverging(), kept)("s", small_net(), 5)
    loaded = kept.load("s")
    assert loaded is not None and loaded.record["epochs_done"] == 2
    assert bool((loaded.tensors["module/0.weight"] == 1).all()) and int(loaded.tensors["state/m/0"]) == 1


def test_a_user_loop_is_kept_when_it_is_done(tmp_path: Path) -> None:
    import torch

    calls = []

    def train(module, epochs: int) -> None:
        calls.append(epochs)
        module.train()
        with torch.no_grad():
            module[0].weight.add_(torch.rand(()))

    kept = Checkpoints(tmp_path)
    one, two, three = small_net(), small_net(), small_net()
    ResumableFit(train, kept)("s", one, 3)
    ResumableFit(train, kept)("s", two, 3)
    ResumableFit(train, None)("s", three, 3)
    assert calls == [3, 3] and same(one, two) and same(one, three)
    assert not any(layer.training for net in (one, two, three) for layer in net.modules())


def test_a_user_loop_that_leaves_nan_writes_no_checkpoint(tmp_path: Path) -> None:
    import torch

    def train(module, epochs: int) -> None:
        with torch.no_grad():
            module[5].bias[1] = torch.inf

    kept = Checkpoints(tmp_path)
    with pytest.raises(TrainingError, match=r"1 of 4 values of '5\.bias'"):
        ResumableFit(train, kept)("s", small_net(), 1)
    assert kept.load("s") is None


def test_without_training_only_zero_epochs_are_done() -> None:
    fit = ResumableFit(None, None)
    net = small_net()
    fit("s", net, 0)
    assert same(net, small_net())
    with pytest.raises(TrainingError, match="no training function"):
        fit("s", net, 1)
    with pytest.raises(UsageError, match="-1 epochs"):
        fit("s", net, -1)


def test_a_checkpoint_that_lies_about_its_epochs_is_refused(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    ResumableFit(trainer(), kept)("s", small_net(), 1)
    loaded = kept.load("s")
    assert loaded is not None
    kept.save("s", loaded.tensors, {**loaded.record, "epochs_done": 9})
    with pytest.raises(IntegrityError, match="9 epochs of 1"):
        ResumableFit(trainer(), kept)("s", small_net(), 1)
    without = {name: tensor for name, tensor in loaded.tensors.items() if name != "module/5.bias"}
    kept.save("s", without, json.loads(json.dumps(loaded.record)))
    with pytest.raises(IntegrityError, match="does not fit the model"):
        ResumableFit(trainer(), kept)("s", small_net(), 1)
