"""The steps of a compression: kept, resumed, redone; and what becomes of them when training fails or is killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.command_line import REPO_ROOT

from edgewright import sample
from edgewright.compression_recipe import CompressionRecipe, CompressionStep
from edgewright.compression_steps import Material, ProgressReader, Stage, original_stage, run_steps
from edgewright.core.compression import StepState
from edgewright.core.errors import DataError, EdgewrightError, TrainingError, UnknownNameError, WorkerError
from edgewright.core.progress import silent
from edgewright.data.calibration import draw
from edgewright.data.datasets import load_dataset
from edgewright.data.handover import hand_over
from edgewright.sources import load

pytestmark = pytest.mark.toolchain("torch")
MODEL = "tests.small_training:create"

Run = Callable[..., tuple[list[Stage], EdgewrightError | None]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    program = load(MODEL, workdir=tmp_path_factory.mktemp("source"), input_shapes=("1x1x8x8",))
    return original_stage(program, program, recipe_of("cluster bits=3"))


@pytest.fixture(scope="module")
def material(original: Stage, tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    data = load_dataset(str(sample.CALIBRATION_DATA), original.program.inputs)
    few = data.take(draw(data, 64, seed=0), description="64 samples")
    training = {"train": "", "import_from": str(REPO_ROOT), "data": hand_over(data, folder / "training")}
    return Material(
        original=original.program, teacher=None, calibration=hand_over(few, folder / "few"), training=training
    )


def recipe_of(*steps: str, train: str = "", seed: int = 0) -> CompressionRecipe:
    return CompressionRecipe(
        model=MODEL,
        steps=tuple(map(CompressionStep.parse, steps)),
        train=f"tests.small_training:{train}" if train else "",
        train_data=str(sample.CALIBRATION_DATA),
        training={"learning_rate": 0.05, "batch_size": 64},
        runtimes=("onnxruntime",),
        seed=seed,
    )


@pytest.fixture
def run(original: Stage, material: Material, tmp_path: Path) -> Run:
    def start(
        recipe: CompressionRecipe, progress: Callable[[str, str, str], None] = silent
    ) -> tuple[list[Stage], EdgewrightError | None]:
        assert material.training is not None
        own = replace(material, training=material.training | {"train": recipe.train})
        return run_steps(recipe, original, own, tmp_path, progress)

    return start


def test_the_original_is_counted(original: Stage) -> None:
    assert original.record.id == "original"
    assert original.record.parameters == 8 * 9 + 8 + 128 * 10 + 10
    assert original.record.macs == 8 * 9 * 64 + 128 * 10
    assert original.record.sparsity == 0.0


def test_steps_follow_one_another_and_are_kept(run: Run, tmp_path: Path) -> None:
    seen: list[tuple[str, str, str]] = []
    stages, error = run(
        recipe_of("sparsify sparsity=0.5 epochs=1", "cluster bits=3"), lambda *step: seen.append(step)
    )
    assert error is None
    assert [stage.record.id for stage in stages] == ["01-sparsify", "02-cluster"]
    assert stages[0].record.sparsity == pytest.approx(0.5, abs=0.01)
    assert [stage.record.state for stage in stages] == [StepState.DONE] * 2
    assert ("01-sparsify", "compress", "done") in seen
    assert {file.name for file in (tmp_path / "steps" / "01-sparsify").iterdir()} == {
        "begun.json", "model.pt2", "step.json",
    }  # fmt: skip
    again, error = run(recipe_of("sparsify sparsity=0.5 epochs=1", "cluster bits=2"))
    assert error is None
    assert [stage.record.state for stage in again] == [StepState.KEPT, StepState.DONE]
    assert again[0].program.sha256 == stages[0].program.sha256
    assert again[1].program.sha256 != stages[1].program.sha256
    (tmp_path / "steps" / "01-sparsify" / "model.pt2").write_bytes(b"changed")
    third, error = run(recipe_of("sparsify sparsity=0.5 epochs=1", "cluster bits=2"))
    assert error is None
    assert [stage.record.state for stage in third] == [StepState.DONE, StepState.KEPT]
    assert third[0].program.sha256 == stages[0].program.sha256


@pytest.mark.parametrize(
    ("train", "error", "words"),
    [
        ("train_to_nan", TrainingError, "NaN or infinite"),
        pytest.param("train_and_return_nan", TrainingError, "returned nan", marks=pytest.mark.slow),
        pytest.param("train_and_crash", TrainingError, "ValueError: no more batches", marks=pytest.mark.slow),
        ("train_and_be_killed_once", WorkerError, "SIGKILL"),
    ],
)
def test_a_training_that_fails_leaves_the_steps_before_it(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    train: str,
    error: type[EdgewrightError],
    words: str,
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TEST_MARKER", str(tmp_path / "marker"))
    stages, failed = run(
        recipe_of("cluster bits=3", "sparsify sparsity=0.5 epochs=1", "cluster bits=2", train=train)
    )
    assert isinstance(failed, error) and words in str(failed)
    assert "step 02-sparsify failed" in str(failed)
    assert "Finished and kept: 01-cluster." in str(failed) and "--resume" in str(failed)
    assert [stage.record.id for stage in stages] == ["01-cluster"]
    assert stages[0].program.path.is_file()
    assert not (tmp_path / "steps" / "03-cluster").exists()


def test_a_training_function_that_is_not_there_is_told_before_any_step(original: Stage) -> None:
    with pytest.raises(TrainingError, match="no_such_function"):
        original_stage(
            original.program, original.program, recipe_of("cluster bits=3", train="no_such_function")
        )


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_result(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    monkeypatch.setenv("EDGEWRIGHT_TEST_MARKER", str(marker))
    recipe = recipe_of("sparsify sparsity=0.5 steps=2 epochs=1", train="train_and_be_killed_once")
    _, failed = run(recipe)
    assert isinstance(failed, WorkerError)
    resumed, failed = run(recipe)
    assert failed is None
    assert marker.exists()
    (tmp_path / "steps" / "01-sparsify" / "step.json").unlink()  # once more, now without a kill
    whole, failed = run(recipe)
    assert failed is None
    assert whole[0].program.sha256 == resumed[0].program.sha256


def test_a_layer_that_is_not_there_is_told_with_the_nearest(run: Run) -> None:
    _, failed = run(recipe_of("sparsify sparsity=0.5 layers=5"))
    assert isinstance(failed, UnknownNameError)
    assert "unknown layer '5'" in str(failed) and "known: 0, 4" in str(failed)


def test_what_a_pass_says_reaches_the_caller(run: Run) -> None:
    seen: list[str] = []
    recipe = recipe_of("sparsify sparsity=0.5 epochs=1", train="train")
    _, error = run(recipe, lambda _id, step, _state: seen.append(step))
    assert error is None
    assert any("training 1 epochs with tests.small_training:train" in line for line in seen), seen


def test_a_line_has_the_share_and_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("edgewright.compression_steps.time.monotonic", lambda: now_s)
    clock, file = ProgressReader(), tmp_path / "progress.json"
    assert clock.line(file) == ""
    file.write_text('{"line": "begins", "share": null}')
    assert clock.line(file) == "begins"
    file.write_text('{"line": "round 1", "share": 0.25}')
    assert clock.line(file) == "25 %  round 1"
    now_s += 60
    file.write_text('{"line": "round 2", "share": 0.5}')
    assert clock.line(file) == "50 %, 2:00 left  round 2"
    file.write_text('{"line": "epoch 2/3  40 s left", "share": 0.6}')
    assert clock.line(file) == "60 %  epoch 2/3  40 s left"
    file.write_text('{"line": "hal')
    assert clock.line(file) == ""


def test_a_folder_of_another_compression_is_done_anew(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "steps" / "01-cluster"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "begun.json").write_text(json.dumps({"key": "another", "seconds": 5.0}))
    (folder / "step.json").write_text("{")
    (folder / "checkpoints" / "left.safetensors").write_bytes(b"")
    stages, error = run(recipe_of("cluster bits=3"))
    assert error is None
    assert stages[0].record.state is StepState.DONE and stages[0].record.seconds < 600
    assert not (folder / "checkpoints").exists()


def test_samples_without_labels_serve_a_step_that_does_not_train(
    original: Stage, material: Material, tmp_path: Path
) -> None:
    data = load_dataset(str(sample.CALIBRATION_DATA), original.program.inputs)
    unlabelled = replace(data, labels=None)
    assert material.training is not None
    training = material.training | {"data": hand_over(unlabelled, tmp_path / "data")}
    own = replace(material, training=training)
    stages, error = run_steps(recipe_of("cluster bits=3"), original, own, tmp_path / "out", silent)
    assert error is None and len(stages) == 1
    _, error = run_steps(
        recipe_of("sparsify sparsity=0.5 epochs=1"), original, own, tmp_path / "other", silent
    )
    assert isinstance(error, DataError) and "label" in str(error)
