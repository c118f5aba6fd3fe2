"""Training with quantization: what is exported is what was trained, in every runtime; zeros stay; bad input is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import small_training
from tests.backends import programs
from torch import nn

from edgewright import sample
from edgewright.backends import registry
from edgewright.backends.vendor import load_exported
from edgewright.compress.checkpoints import Checkpoints, Reached, Report, ResumableFit, silent
from edgewright.compress.passes import Bench, Compressed
from edgewright.compress.qat import PASS, QatOptions, quantize_aware
from edgewright.compress.training import Trainer, TrainingOptions
from edgewright.core.errors import (
    ConversionError,
    DataError,
    FormatMismatchError,
    TrainingError,
    UnknownNameError,
    UsageError,
)
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.data.datasets import make_dataset
from edgewright.data.preparation import DataRequest, prepare
from edgewright.sources.torch_export import precision_of

pytestmark = pytest.mark.toolchain("torch", "torchao")

RUNTIMES = {
    "litert": "ai_edge_litert",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "executorch": "executorch",
}


def images(count: int = 48) -> torch.Tensor:
    return torch.randn(count, *programs.CNN_IMAGE, generator=torch.Generator().manual_seed(7)) + 0.3


class Loop:
    """A rough loop of the user's, which keeps what the trained network answers."""

    def __init__(self) -> None:
        self.calls = 0
        self.module: nn.Module = nn.Identity()
        self.answers = torch.empty(0)

    def __call__(self, module: nn.Module, epochs: int) -> None:
        self.calls += 1
        module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01)
        targets = torch.arange(48) % 10
        for _ in range(4 * epochs):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images()), targets).backward()
            optimizer.step()
        module.eval()
        self.module = module
        with torch.no_grad():
            self.answers = module(images())


def bench_for(folder: Path, train: Callable[[nn.Module, int], None] | None, original: Program) -> Bench:
    return Bench(
        folder=folder,
        calibration=[(images(),)],
        labels=None,
        fit=ResumableFit(train, Checkpoints(folder / "checkpoints")),
        teacher=None,
        original=original,
        report=silent,
    )


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return programs.cnn_pt2(tmp_path_factory.mktemp("qat"))


@pytest.fixture(scope="module", params=["w8a8", "w4a8"])
def done(
    request: pytest.FixtureRequest, cnn: Program, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Compressed, Loop]:
    loop = Loop()
    bench = bench_for(tmp_path_factory.mktemp(request.param), loop, cnn)
    return PASS.run(cnn, QatOptions(precision=request.param, epochs=2), bench), loop


def weights_of(exported: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the integers of each quantized weight, and check that they can be told."""
    found = {}
    constants = {**exported.state_dict, **exported.constants}
    names = {
        **exported.graph_signature.inputs_to_parameters,
        **exported.graph_signature.inputs_to_buffers,
        **exported.graph_signature.inputs_to_lifted_tensor_constants,
    }
    for node in exported.graph.nodes:
        if "quantize_per_channel.default" in str(node.target) and "dequantize" not in str(node.target):
            values = [constants[names[argument.name]] for argument in node.args[:3]]
            found[names[node.args[0].name]] = node.target(*values, *node.args[3:])
    return found


def test_export_computes_what_was_trained(done: tuple[Compressed, Loop]) -> None:
    made, loop = done
    answers = load_exported(made.program).module()(images())
    step = float(torch.diff(loop.answers.unique()).min())
    assert float((answers - loop.answers).abs().max()) < 1.01 * step
    assert loop.calls == 1


def test_program_says_what_it_is(done: tuple[Compressed, Loop], cnn: Program) -> None:
    program, facts = done[0].program, done[0].facts
    exported = load_exported(program)
    assert program.precision == precision_of(exported) == facts["precision"]
    assert (program.inputs, program.outputs) == (cnn.inputs, cnn.outputs)
    assert program.history == (*cnn.history, f"qat({facts['precision']}, 2 epochs)")
    assert facts["quantized layers"] == len(weights_of(exported)) == 4
    assert program.sha256 != cnn.sha256


def test_weights_have_as_many_values_as_their_bits_allow(done: tuple[Compressed, Loop]) -> None:
    largest = 7 if done[0].program.precision == "w4a8" else 127
    for name, weight in weights_of(load_exported(done[0].program)).items():
        assert int(weight.abs().max()) == largest, name


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_computes_what_was_trained(
    done: tuple[Compressed, Loop], runtime: str, tmp_path: Path
) -> None:
    if find_spec(RUNTIMES[runtime]) is None:
        pytest.skip(f"{runtime} is not installed")
    made, loop = done
    backend = registry.get(runtime)
    target = Target(runtime=runtime, precision=Precision.parse(made.program.precision))
    assert backend.quantizer(made.program, target) is None
    artifact = backend.convert(made.program, target, None, tmp_path)
    session = backend.open(artifact, target)
    rows = [session.run({artifact.inputs[0].name: row[None].numpy()}) for row in images()]
    session.close()
    got = np.concatenate([next(iter(row.values())) for row in rows])
    want = loop.answers.numpy()
    step = np.diff(np.unique(want)).min()
    assert np.abs(got - want).max() < 1.01 * step
    is_told = any("4-bit" in note for note in artifact.notes)
    assert is_told == (made.program.precision == "w4a8")


def test_build_of_a_trained_program_needs_no_calibration(
    done: tuple[Compressed, Loop], cnn: Program, tmp_path: Path
) -> None:
    np.savez(tmp_path / "eval.npz", image=images().numpy())
    request = DataRequest(data=str(tmp_path / "eval.npz"), needs_calibration=True)
    assert prepare(request, cnn, tmp_path / "float").calibration is not None
    prepared = prepare(request, done[0].program, tmp_path / "trained")
    assert (prepared.calibration, prepared.warnings) == (None, ())


def test_training_wins_back_what_four_bits_lose() -> None:
    with np.load(sample.EVAL_DATA) as data:
        pictures, labels = torch.from_numpy(data["inputs"]), torch.from_numpy(data["labels"])
    with np.load(sample.CALIBRATION_DATA) as data:
        calibration = [(torch.from_numpy(data["inputs"][:64]),)]
    network = small_training.create()
    small_training.train(network, 6)

    def error(epochs: int) -> float:
        exported = quantize_aware(
            network,
            (pictures[:2],),
            precision="w4a8",
            calibration=calibration,
            train=small_training.train,
            epochs=epochs,
        )
        with torch.no_grad():
            return float(nn.functional.cross_entropy(exported.module()(pictures), labels))

    assert error(3) < 0.9 * error(0)


@pytest.mark.parametrize("precision", ["w8a8", "w4a8"])
def test_zeros_of_a_pruned_network_stay(precision: str) -> None:
    network = programs.cnn_module()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(layer.weight.abs() > layer.weight.abs().median())

    def zeros(keep: bool) -> dict[str, float]:
        exported = quantize_aware(
            network,
            (images(2),),
            precision=precision,  # type: ignore[arg-type]
            calibration=[(images(),)],
            train=Loop(),
            epochs=3,
            keep_zeros=keep,
        )
        weights = weights_of(exported)
        assert all(
            (weights[name] == 0)[exported.state_dict[name] == 0].all() for name in weights
        )  # what is stored is what is computed with
        return {name: float((exported.state_dict[name] == 0).float().mean()) for name in weights}

    assert all(share >= 0.5 for share in zeros(True).values())
    assert all(share < 0.1 for share in zeros(False).values())


def test_ranges_follow_the_training_and_rest_in_evaluation() -> None:
    from edgewright.compress.qat_modules import ActivationFakeQuantize

    seen: list[list[float]] = []

    def train(module: nn.Module, epochs: int) -> None:
        ranges = [layer for layer in module.modules() if isinstance(layer, ActivationFakeQuantize)]
        for mode, scale in ((False, 4.0), (True, 1.0), (True, 4.0), (False, 9.0)):
            module.train(mode)
            module(scale * images())
            seen.append([float(layer.high) for layer in ranges])

    quantize_aware(programs.cnn_module(), (images(2),), calibration=[(images(),)], train=train)
    assert seen[0] != seen[1]
    assert all(after > before for before, after in zip(seen[1], seen[2], strict=True))
    assert seen[2] == seen[3]


def test_dropout_drops_in_training_only() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3)).eval()
    inputs = torch.randn(16, 6)

    def train(module: nn.Module, epochs: int) -> None:
        module.train()
        assert not torch.equal(module(inputs), module(inputs))
        module.eval()
        assert torch.equal(module(inputs), module(inputs))

    exported = quantize_aware(network, (inputs[:2],), calibration=[(inputs,)], train=train)
    with torch.no_grad():
        got, want = exported.module()(inputs), network(inputs)
    assert float((got - want).abs().max()) < 4 * float(torch.diff(got.unique()).min())


def test_given_network_is_not_changed() -> None:
    network = programs.cnn_module()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    quantize_aware(network, (images(2),), calibration=[(images(),)], train=Loop())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    def run(train: Callable[[nn.Module, int], None]) -> torch.Tensor:
        exported = quantize_aware(
            programs.cnn_module(),
            (images(2),),
            calibration=[(images(),)],
            train=train,
            checkpoints=tmp_path,
        )
        answers: torch.Tensor = exported.module()(images())
        return answers

    loop = Loop()
    assert torch.equal(run(loop), run(loop))
    assert loop.calls == 1


class KilledAfterOneEpoch(Trainer):
    """Stops as a kill would, right after the first checkpoint."""

    def train_epochs(
        self,
        module: nn.Module,
        epochs: int,
        *,
        salt: str,
        reached: Reached | None,
        keep: Callable[[Reached], None],
        report: Report,
    ) -> None:
        def keep_and_stop(now: Reached) -> None:
            keep(now)
            raise KeyboardInterrupt

        super().train_epochs(module, epochs, salt=salt, reached=reached, keep=keep_and_stop, report=report)


def test_killed_training_goes_on_to_the_very_same_network(tmp_path: Path) -> None:
    data = make_dataset({"image": images().numpy()}, np.arange(48) % 10, description="noise")
    options = TrainingOptions(batch_size=16, learning_rate=0.02)

    def run(trainer: Trainer, folder: str) -> dict[str, torch.Tensor]:
        exported = quantize_aware(
            programs.cnn_module(),
            (images(2),),
            calibration=[(images(),)],
            train=trainer,
            epochs=2,
            checkpoints=tmp_path / folder,
        )
        return {**exported.state_dict, "answers": exported.module()(images())}

    with pytest.raises(KeyboardInterrupt):
        run(KilledAfterOneEpoch(data, options), "killed")
    resumed, whole = run(Trainer(data, options), "killed"), run(Trainer(data, options), "whole")
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_diverged_training_keeps_the_last_checkpoint(cnn: Program, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="NaN"):
        PASS.run(cnn, QatOptions(), bench_for(tmp_path, small_training.train_to_nan, cnn))
    assert not list((tmp_path / "checkpoints").glob("*")) and not (tmp_path / "model.pt2").exists()
    assert PASS.run(cnn, QatOptions(), bench_for(tmp_path, Loop(), cnn)).program.path.is_file()


def test_without_a_training_function_it_only_calibrates_or_says_so(cnn: Program, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs training"):
        PASS.run(cnn, QatOptions(), bench_for(tmp_path, None, cnn))
    assert PASS.run(cnn, QatOptions(epochs=0), bench_for(tmp_path, None, cnn)).program.precision == "w8a8"


def test_wrong_options_and_programs_are_refused(cnn: Program, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="w2a8"):
        QatOptions(precision="w2a8")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="-1 epochs"):
        QatOptions(epochs=-1)
    for other in (replace(cnn, precision="w8a8"), replace(cnn, format="onnx")):
        with pytest.raises(FormatMismatchError, match="float PyTorch programs"):
            PASS.run(other, QatOptions(), bench_for(tmp_path, Loop(), cnn))


def test_network_without_weights_and_wrong_samples_are_refused(cnn: Program, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="no convolution or linear layer"):
        quantize_aware(nn.Sequential(nn.ReLU()), (images(2),), calibration=[(images(),)], train=Loop())
    bench = bench_for(tmp_path, Loop(), cnn)
    with pytest.raises(DataError, match="got none"):
        PASS.run(cnn, QatOptions(), replace(bench, calibration=[]))
    with pytest.raises(DataError, match=r"samples \[\[4, 3, 8, 8\]\]"):
        PASS.run(cnn, QatOptions(), replace(bench, calibration=[(torch.zeros(4, 3, 8, 8),)]))
