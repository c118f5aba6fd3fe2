"""The pass "distill": a program taught by one of any inputs' layout and batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.compress.test_distilling import digits, net
from tests.compress.test_distilling import one_thread as one_thread

from edgewright.compress.checkpoints import Checkpoints, ResumableFit, silent, state_of
from edgewright.compress.distilling import PASS, DistillOptions
from edgewright.compress.module import to_module
from edgewright.compress.passes import Bench
from edgewright.compress.training import Trainer, TrainingOptions, accuracy
from edgewright.core.errors import ConversionError
from edgewright.core.program import Program
from edgewright.data.datasets import Dataset
from edgewright.sources.torch_export import export_module

pytestmark = pytest.mark.toolchain("torch")


def program_of(module, folder: Path, *, layout=None, count: int = 2) -> Program:
    import torch

    folder.mkdir()
    x = torch.rand(count, 1, 8, 8)
    return export_module(module.eval(), (x,), workdir=folder, origin="net", layout=layout)


def bench_of(folder: Path, original: Program, teacher: Program | None, training: Dataset) -> Bench:
    import torch

    x = torch.from_numpy(training.inputs["x"])
    return Bench(
        folder=folder,
        calibration=[(x[:32],), (x[32:64],)],
        labels=None,
        fit=ResumableFit(Trainer(training, TrainingOptions(batch_size=32)), Checkpoints(folder)),
        teacher=teacher,
        original=original,
        report=silent,
    )


@pytest.mark.parametrize("kind", ["original", "channels-last", "single"])
def test_the_pass_teaches_a_program(tmp_path: Path, kind: str) -> None:
    training, evaluation = digits()
    big = net(16, seed=1)
    Trainer(training, TrainingOptions(batch_size=32))(big, 6)
    student = program_of(net(4), tmp_path / "student")
    if kind == "single":
        original = program_of(big, tmp_path / "teacher")
        exported = program_of(always_one(big), tmp_path / "one", count=1)
        assert exported.inputs[0].shape[0] == 1
        bench = bench_of(tmp_path / "step", original, exported, training)
    elif kind == "channels-last":
        turned = export_last(big, tmp_path)
        assert turned.inputs[0].shape == (None, 8, 8, 1)
        bench = bench_of(tmp_path / "step", student, turned, training)
    else:
        bench = bench_of(tmp_path / "step", program_of(big, tmp_path / "teacher"), None, training)
    options = DistillOptions(epochs=1 if kind == "single" else 5)
    if kind == "original":
        options = replace(options, hints=("0",), attention=("3=3",), attention_weight=10.0)
    made = PASS.run(student, options, bench)
    assert made.program.path.parent == tmp_path / "step"
    assert made.program.history[-1].startswith("distill(from ")
    before, after = made.facts["same class as teacher before"], made.facts["same class as teacher"]
    assert isinstance(before, float) and isinstance(after, float)
    assert after > before + (0.2 if kind == "single" else 0.5)
    if kind == "original":
        assert accuracy(to_module(made.program), evaluation) > 0.85
        assert list(state_of(to_module(made.program))) == list(state_of(to_module(student)))


def always_one(module):
    """Return `module` behind a reshape to a batch of one."""
    import torch

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x):
            return self.inner(x.reshape(1, 1, 8, 8))

    return One()


def export_last(module, tmp_path: Path) -> Program:
    import torch

    folder = tmp_path / "last"
    folder.mkdir()
    return export_module(
        module.eval(), (torch.rand(2, 1, 8, 8),), workdir=folder, origin="last", layout="nhwc"
    )


@pytest.mark.slow
def test_the_pass_teaches_a_quantized_program(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    from edgewright.compress.quantize import quantize_pt2e
    from edgewright.core.contracts import Calibration
    from edgewright.core.target import Precision

    training, _ = digits()
    big = net(8, seed=1)
    Trainer(training, TrainingOptions(batch_size=32))(big, 3)
    small = net(4)
    Trainer(training, TrainingOptions(batch_size=32))(small, 1)  # else ranges are those of noise
    student = program_of(small, tmp_path / "student")
    path = tmp_path / "calibration.npz"
    np.savez(path, **{student.inputs[0].name: training.inputs["x"][:64]})
    samples = Calibration(path=path, count=64, sha256="0" * 64, description="64 digits")
    quantized = quantize_pt2e(student, precision=Precision.W8A8, calibration=samples, workdir=tmp_path)
    bench = bench_of(tmp_path / "step", program_of(big, tmp_path / "teacher"), None, training)
    made = PASS.run(quantized, DistillOptions(epochs=3), bench)
    assert made.program.precision == "w8a8"
    before, after = made.facts["same class as teacher before"], made.facts["same class as teacher"]
    assert isinstance(before, float) and isinstance(after, float) and after > before + 0.05


def test_the_pass_says_that_clusters_are_lost(tmp_path: Path) -> None:
    import torch

    training, _ = digits()
    clustered = net(4)
    with torch.no_grad():
        clustered[6].weight.copy_((clustered[6].weight * 50).round() / 50)
    student = program_of(clustered, tmp_path / "student")
    bench = bench_of(tmp_path / "step", program_of(net(4), tmp_path / "teacher"), None, training)
    made = PASS.run(student, DistillOptions(epochs=0), bench)
    assert len(made.notes) == 1 and "weights of 6 shared" in made.notes[0]


def test_the_pass_refuses_a_teacher_of_other_inputs(tmp_path: Path) -> None:
    training, _ = digits()
    student = program_of(net(4), tmp_path / "student")
    other = replace(student, inputs=(replace(student.inputs[0], shape=(None, 3, 8, 8)),))
    bench = bench_of(tmp_path / "step", student, other, training)
    with pytest.raises(
        ConversionError, match=r"student takes .*\[\?, 1, 8, 8\], but the teacher .*\[\?, 3, 8, 8\]"
    ):
        PASS.run(student, DistillOptions(), bench)
