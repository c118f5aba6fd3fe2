"""The built-in training, and the user's own loop with what can be wrong with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.compress.test_checkpoints import same, small_data, small_net

from edgewright.compress.checkpoints import Checkpoints, ResumableFit, state_of
from edgewright.compress.training import Trainer, TrainingOptions, accuracy, load_train
from edgewright.compress.training_options import augment, learning_rate
from edgewright.compress.user_training import call_train
from edgewright.core.errors import DataError, TrainingError, UnknownNameError, UsageError
from edgewright.data.datasets import make_dataset

pytestmark = pytest.mark.toolchain("torch")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Train on one thread: the layers are tiny, and threads that wait for each other on a busy machine are slow."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(module, epochs: int = 2, report=None, **options) -> None:
    settings = {"batch_size": 32, "learning_rate": 0.02, **options}
    Trainer(small_data(), TrainingOptions(**settings), report=report or (lambda line, share: None))(
        module, epochs
    )


@pytest.mark.parametrize(
    ("optimizer", "schedule", "rate"),
    [("sgd", "onecycle", 0.02), ("adamw", "cosine", 0.01), ("sgd", "constant", 0.005)],
)
def test_learns_and_ends_in_evaluation_mode(optimizer: str, schedule: str, rate: float) -> None:
    import torch

    net, data = small_net(), small_data()
    assert accuracy(net, data) < 0.6
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    train(net, 8, optimizer=optimizer, schedule=schedule, learning_rate=rate, threads=1)
    assert accuracy(net, data) > 0.93
    assert not any(layer.training for layer in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net[0].weight.is_contiguous()
    assert torch.equal(torch.get_rng_state(), random) and torch.get_num_threads() == threads


def test_the_seed_decides_the_weights() -> None:
    nets = [small_net() for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        train(net, 1, seed=seed, augment="shift", shift_pixels=1)
    assert same(nets[0], nets[1]) and not same(nets[0], nets[2])


def test_tells_the_loss_and_the_time_left() -> None:
    told: list[tuple[str, float | None]] = []
    train(small_net(), 3, report=lambda line, share: told.append((line, share)))
    ends = [line for line, share in told if share in (1 / 3, 2 / 3, 1.0)]
    assert [line.split()[1] for line in ends] == ["1/3", "2/3", "3/3"]
    losses = [float(line.split()[3]) for line in ends]
    assert losses[2] < losses[0]
    assert ends[2].endswith("0 s left")


def test_trains_what_ends_in_a_softmax_as_its_logits() -> None:
    import torch

    plain, soft = small_net(), torch.nn.Sequential(*small_net(), torch.nn.Softmax(1))
    train(plain, 2)
    train(soft, 2)
    a, b = state_of(plain), state_of(soft)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_says_at_once_when_the_loss_is_nan_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    import torch

    class Poisoned(torch.nn.Module):
        """Gives infinity from the thirtieth training step on: in the fourth of epochs of eight steps."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = small_net()
            self.steps = 0

        def forward(self, x):
            self.steps += self.training
            return self.inner(x) * (torch.inf if self.steps >= 30 else 1.0)

    kept = Checkpoints(tmp_path)
    trainer = Trainer(small_data(), TrainingOptions(batch_size=32))
    with pytest.raises(TrainingError, match=r"loss is nan in step 6 of epoch 4.*[Ll]ower the learning rate"):
        ResumableFit(trainer, kept)("s", Poisoned(), 6)
    loaded = kept.load("s")
    assert loaded is not None and loaded.record["epochs_done"] == 3
    with pytest.raises(TrainingError, match=r"epoch 1.*' are NaN or infinite"):
        train(small_net(), 1, learning_rate=1e30, schedule="constant")


def test_weights_decay_and_biases_do_not() -> None:
    import torch

    class Idle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_net()
            self.matrix, self.bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.inner(x) + 0 * (self.matrix.sum() + self.bias.sum())

    net = Idle()
    train(net, 1, weight_decay=0.5)
    assert bool((net.matrix < 1).all()) and bool((net.bias == 1).all())


def test_cuts_the_gradient() -> None:
    import torch

    net = small_net()
    before = copy.deepcopy(list(net.parameters()))
    train(net, 1, batch_size=256, clip_norm=1e-3, momentum=0, weight_decay=0, schedule="constant")
    changes = [(a - b).detach().norm() for a, b in zip(before, net.parameters(), strict=True)]
    assert 0.9 * 0.02e-3 < float(torch.stack(changes).norm()) < 1.1 * 0.02e-3


def test_images_run_channels_last_where_the_model_can() -> None:
    import torch

    class Seen(torch.nn.Module):
        def __init__(self, *, has_view: bool) -> None:
            super().__init__()
            self.convolution, self.linear = torch.nn.Conv2d(2, 8, 3), torch.nn.Linear(128, 4)
            self.norm = torch.nn.BatchNorm2d(8)
            self.has_view = has_view
            self.formats: set[bool] = set()

        def forward(self, x):
            if self.training:
                self.formats.add(x.is_contiguous(memory_format=torch.channels_last))
            y = self.norm(self.convolution(x))
            return self.linear(y.view(len(y), -1) if self.has_view else y.flatten(1))

    data = small_data()
    images = np.concatenate([data.inputs["x"]] * 2, axis=1)
    both = make_dataset({"x": images}, data.labels, description="two channels")
    for has_view in (True, False):
        net = Seen(has_view=has_view)
        Trainer(both, TrainingOptions(batch_size=32))(net, 1)
        assert net.formats == {not has_view}
        assert int(net.norm.num_batches_tracked) == 8  # trying it out left no trace


def test_trains_parametrized_layers() -> None:
    import torch
    from torch.nn.utils import parametrize

    class Half(torch.nn.Module):
        def forward(self, weight):
            return weight * torch.tensor([0.0, 1.0]).repeat(4)[:, None, None, None]

    net = small_net()
    parametrize.register_parametrization(net[0], "weight", Half())
    train(net, 8)
    assert bool((net[0].weight[::2] == 0).all())
    assert accuracy(net, small_data()) > 0.9


def test_trains_a_graph_of_torch_export() -> None:
    pytest.importorskip("torchao")
    import torch

    batch = torch.export.Dim("batch", min=1, max=4096)
    exported = torch.export.export(
        small_net().train(), (torch.rand(4, 1, 6, 6),), dynamic_shapes=({0: batch},)
    )
    graph = exported.module(check_guards=False)
    with pytest.raises(NotImplementedError):
        graph.train()
    train(graph, 3)
    whole = small_net()
    train(whole, 3)
    x = torch.from_numpy(small_data().inputs["x"])
    with torch.no_grad():
        assert torch.allclose(graph(x), whole(x), atol=1e-4)


def test_accuracy_leaves_every_mode_and_running_mean() -> None:
    net, data = small_net().train(), small_data()
    net[1].eval()
    before = copy.deepcopy(net)
    share = accuracy(net, data, batch_size=100)
    assert same(net, before) and net.training and not net[1].training and net[4].training
    import torch

    with torch.no_grad():
        guesses = net.eval()(torch.from_numpy(data.inputs["x"])).argmax(1).numpy()
    assert share == float((guesses == data.labels).mean())


def test_refuses_models_and_data_that_do_not_fit() -> None:
    import torch

    class Single(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(36, 4)

        def forward(self, x):
            return self.linear(x.reshape(1, 36))

    with pytest.raises(
        TrainingError, match=r"batch of training samples, shapes \[\[64, 1, 6, 6\]\].*dynamic batch"
    ):
        train(Single())
    with pytest.raises(TrainingError, match=r"float32 \[64, 1, 6, 6\] for 64 samples.*package\.module:train"):
        train(torch.nn.Conv2d(1, 1, 1))
    with pytest.raises(DataError, match="label 3, but the model gives 2 classes"):
        train(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2)))
    with pytest.raises(TrainingError, match="no parameter to train"):
        train(small_net().requires_grad_(False))
    with pytest.raises(UsageError, match="-1 epochs"):
        train(small_net(), -1)
    data = small_data()
    with pytest.raises(DataError, match="labels"):
        Trainer(make_dataset(data.inputs, None, description="bare"))
    with pytest.raises(DataError, match="no sample"):
        Trainer(make_dataset({"x": data.inputs["x"][:0]}, data.labels[:0], description="empty"))
    with pytest.raises(DataError, match="float32"):
        Trainer(make_dataset(data.inputs, data.labels.astype(np.float32), description="floats"))
    rows = make_dataset({"x": data.inputs["x"].reshape(256, 36)}, data.labels, description="rows")
    with pytest.raises(UsageError, match=r"augment 'flip'.*\[\[256, 36\]\]"):
        Trainer(rows, TrainingOptions(augment="flip"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adam"}, UnknownNameError, "Did you mean 'adamw'"),
        ({"schedule": "one-cycle"}, UnknownNameError, "Did you mean 'onecycle'"),
        ({"augment": "shifts"}, UnknownNameError, "Did you mean 'shift'"),
        ({"batch_size": 0}, UsageError, "batch_size is 0"),
        ({"learning_rate": 0.0}, UsageError, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, UsageError, "learning_rate is nan"),
        ({"clip_norm": -1.0}, UsageError, "clip_norm"),
        ({"label_smoothing": 1.0}, UsageError, "label_smoothing"),
        ({"momentum": 1.0}, UsageError, "momentum"),
        ({"threads": 0}, UsageError, "threads"),
    ],
)
def test_refuses_options(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TrainingOptions(**options)


def test_the_learning_rate_follows_its_schedule() -> None:
    def rates(schedule: str) -> list[float]:
        options = TrainingOptions(schedule=schedule, learning_rate=2.0)
        return [learning_rate(options, step, 100) for step in range(100)]

    one, cosine = rates("onecycle"), rates("cosine")
    assert rates("constant") == [2.0] * 100
    assert one[0] == pytest.approx(0.08) and one[20] == 2.0 == max(one) and one[10] == pytest.approx(1.04)
    assert one[60] == pytest.approx(1.0) and 0 < one[99] < 0.002
    assert cosine[0] == 2.0 and cosine[50] == pytest.approx(1.0) and sorted(cosine, reverse=True) == cosine


def test_shifts_and_flips_images() -> None:
    import torch

    images = torch.arange(1.0, 2 * 3 * 5 * 4 + 1).reshape(2, 3, 5, 4).repeat(50, 1, 1, 1)
    torch.manual_seed(0)
    flipped = augment(images, TrainingOptions(augment="flip"), "nchw")
    kinds = [
        (torch.equal(new, old), torch.equal(new, old.flip(2)))
        for new, old in zip(flipped, images, strict=True)
    ]
    assert set(kinds) == {(True, False), (False, True)}
    torch.manual_seed(0)
    shifted = augment(images, TrainingOptions(augment="shift", shift_pixels=2), "nchw")
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    moves = set()
    for new, old in zip(shifted, padded, strict=True):
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(new, old[:, row : row + 5, column : column + 4])
        ]
        assert len(found) == 1
        moves.add(found[0])
    assert len(moves) > 15
    torch.manual_seed(0)
    last = augment(images.permute(0, 2, 3, 1), TrainingOptions(augment="shift", shift_pixels=2), "nhwc")
    assert torch.equal(last.permute(0, 3, 1, 2), shifted)


LOOPS = """
import sys
from edgewright.compress.training import Trainer, TrainingOptions
from tests.compress.test_checkpoints import small_data

def good(module, epochs):
    import helper_of_the_user
    helper_of_the_user.step(module, epochs)

def good_with_options(module, epochs, rate=0.1, *, verbose=False):
    return 0.25

def same_module(module, epochs):
    return module

def no_epochs(module):
    pass

def crashes(module, epochs):
    rates = {"a": 1}
    return rates["b"]

def crashes_in_torch(module, epochs):
    module(None)

def returns_nan(module, epochs):
    import torch
    return torch.tensor(float("nan"))

def returns_other(module, epochs):
    import copy
    return copy.deepcopy(module)

def leaves(module, epochs):
    sys.exit(3)

def reshapes(module, epochs):
    import torch
    module[0].weight = torch.nn.Parameter(torch.zeros(3, 3))

def halves(module, epochs):
    module.half()

trainer = Trainer(small_data(), TrainingOptions(batch_size=64))
number = 5
"""


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the user's modules into the working folder; return the name of the one with the loops."""
    name = f"loops_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(LOOPS)
    (tmp_path / "helper_of_the_user.py").write_text(
        "def step(module, epochs):\n    module[0].weight.data.fill_(epochs)\n"
    )
    monkeypatch.chdir(tmp_path)
    return name


def test_a_user_loop_trains_in_place(loops: str) -> None:
    net = small_net()
    assert load_train(f"{loops}:good")(net, 3) is None
    assert bool((net[0].weight == 3).all())
    load_train(f"{loops}:good_with_options")(net, 3)
    load_train(f"{loops}:same_module")(net, 3)


def test_a_user_loop_that_can_go_on_is_given_as_it_is(loops: str) -> None:
    assert isinstance(load_train(f"{loops}:trainer"), Trainer)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crashes", r"crashes failed: KeyError: 'b' \(.*loops_.*\.py:21: return rates\[\"b\"\]\)"),
        ("crashes_in_torch", r"crashes_in_torch failed: .*loops_.*\.py:24: module\(None\)\)"),
        ("returns_nan", r"returned nan: the training diverged"),
        ("returns_other", r"returned Sequential\. A training function is called as train\(module, epochs\)"),
        ("leaves", r"ended the program \(exit code 3\)"),
        (
            "reshapes",
            r"reshapes changed parameter '0.weight': it was float32 \[\d.*\], and is float32 \[3, 3\]",
        ),
        ("halves", r"halves changed parameter '0.weight': it was float32 .*, and is float16"),
    ],
)
def test_says_what_a_user_loop_did_wrong(loops: str, name: str, message: str) -> None:
    run = load_train(f"{loops}:{name}")
    with pytest.raises(TrainingError, match=message):
        ResumableFit(run, None)("s", small_net(), 1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:no_epochs", r"no_epochs\(module\) cannot be called with \(module, epochs\): too many"),
        ("{}:number", "has no function 'number'; it has .*good"),
        ("{}:absent", "has no function 'absent'"),
        ("absent_module:train", r"cannot import 'absent_module'.*ModuleNotFoundError"),
        ("train.py", r"package\.module:train is expected"),
        ("broken:train", r"cannot import 'broken'.*SyntaxError.*broken\.py:2"),
    ],
)
def test_says_why_a_user_loop_cannot_be_used(loops: str, tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "broken.py").write_text("import sys\ndef train(:\n")
    with pytest.raises(TrainingError, match=message):
        load_train(spec.format(loops))


def test_random_numbers_of_a_user_loop_come_from_the_stage() -> None:
    import random

    import torch

    seen: list[tuple[float, ...]] = []

    def loop(module, epochs: int) -> None:
        seen.append((random.random(), float(np.random.rand()), float(torch.rand(()))))

    for salt in ("a", "a", "b"):
        call_train(loop, small_net(), 1, salt=salt)
    assert seen[0] == seen[1] and not set(seen[0]) & set(seen[2])
