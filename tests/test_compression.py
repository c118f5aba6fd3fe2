"""A compression from the model to the table: every step's artifact beside the original's, and a build of any step."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.command_line import REPO_ROOT, cli, left_in
from tests.small_models import write_data, write_onnx

from edgewright import sample
from edgewright.compression import CompressionResult, compress_model
from edgewright.compression_recipe import CompressionRecipe, CompressionStep
from edgewright.core.errors import DataError, FormatMismatchError, TrainingError, UsageError

pytestmark = pytest.mark.toolchain("torch", "onnxruntime")
DIGITS = (
    "edgewright.sample.digits:create", "--weights", sample.WEIGHTS, "--input-shape", "1x1x8x8",
    "--train-data", sample.CALIBRATION_DATA, "--data", sample.EVAL_DATA, "--to", "onnxruntime",
)  # fmt: skip


def recipe_of(*steps: str, **changes: object) -> CompressionRecipe:
    values: dict[str, object] = {
        "model": "tests.small_training:create",
        "input_shapes": ("1x1x8x8",),
        "steps": tuple(map(CompressionStep.parse, steps)),
        "train_data": str(sample.CALIBRATION_DATA),
        "data": str(sample.EVAL_DATA),
        "runtimes": ("onnxruntime",),
    }
    return CompressionRecipe(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> CompressionResult:
    """Compress the digits of the demo: sparse, int8, clustered and packed; shared: never change it."""
    out = tmp_path_factory.mktemp("chain") / "out"
    recipe = CompressionRecipe(
        model=sample.MODEL,
        weights=str(sample.WEIGHTS),
        input_shapes=("1x1x8x8",),
        train_data=str(sample.CALIBRATION_DATA),
        data=str(sample.EVAL_DATA),
        runtimes=("onnxruntime",),
        steps=tuple(
            map(
                CompressionStep.parse,
                ["prune macs=0.6 epochs=2", "qat epochs=1", "cluster bits=3", "entropy"],
            )
        ),
    )
    return compress_model(recipe, out=out)


@pytest.mark.slow
def test_every_step_has_a_row_beside_the_original(chain: CompressionResult) -> None:
    assert chain.error is None and chain.exit_code == 0
    summary = chain.summary
    assert [row.step for row in summary.rows] == [
        "original",
        "01-prune",
        "02-qat",
        "03-cluster",
        "04-entropy",
    ]
    assert all(row.result.status == "ok" for row in summary.rows), [row.result.reason for row in summary.rows]
    for row in summary.rows:
        assert row.result.metric is not None and row.result.metric.n == 597
        assert row.result.metric.drop_ci95 is not None and row.result.metric.drop_points < 10
        assert row.result.latency_ms is not None and row.result.memory_bytes
    original, prune, qat, _cluster, entropy = summary.rows
    assert original.result.speed_up == 1.0
    assert prune.download_bytes < 0.8 * original.download_bytes  # type: ignore[operator]
    assert qat.download_bytes < 0.6 * prune.download_bytes  # type: ignore[operator]
    assert entropy.is_packed and entropy.download_bytes < 0.8 * entropy.result.size_bytes  # type: ignore[operator]
    steps = {step.id: step for step in summary.steps}
    assert steps["01-prune"].macs <= 0.65 * steps["original"].macs  # type: ignore[operator]
    assert [step.precision for step in summary.steps] == ["fp32", "fp32", "w8a8", "w8a8", "w8a8"]


@pytest.mark.slow
def test_the_record_the_page_and_the_packed_artifact_are_there(
    chain: CompressionResult, tmp_path: Path
) -> None:
    from edgewright.ewz import unpack

    record = json.loads((chain.out / "results.json").read_text())
    assert record == json.loads(json.dumps(chain.summary.to_json()))
    assert record["failure"] is None and record["conditions"]["seed"] == 0
    assert {row["id"] for row in record["results"]} >= {"original/onnxruntime", "04-entropy/onnxruntime"}
    assert (chain.out / "evidence" / "03-cluster.onnxruntime.latency.json").is_file()
    page = chain.report.read_text()
    assert "01-prune" in page and "plot-drop" in page and "http-equiv" in page
    artifact = chain.out / "artifacts" / "onnxruntime-w8a8" / "model.onnx"
    unpack(chain.out / "artifacts" / "onnxruntime-w8a8.ewz", tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == artifact.read_bytes()
    assert chain.summary.rows[-1].result.artifact == "artifacts/onnxruntime-w8a8/model.onnx"
    assert chain.model == chain.out / "steps" / "03-cluster" / "model.pt2"
    assert CompressionRecipe.read(chain.out / "compress.toml").steps == tuple(
        map(CompressionStep.parse, ["prune macs=0.6 epochs=2", "qat epochs=1", "cluster bits=3", "entropy"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("step", ["01-prune", "02-qat"])
def test_the_command_of_a_step_builds_it(chain: CompressionResult, step: str) -> None:
    words = shlex.split(chain.summary.commands[step])
    assert words[:2] == ["edgewright", "build"]
    process = cli(*words[1:])
    out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    built = json.loads((chain.out / "builds" / step / "results.json").read_text())["results"]
    own = next(row for row in chain.summary.rows if row.step == step)
    assert own.result.metric is not None
    assert [row["metric"]["value"] for row in built] == [own.result.metric.value]


@pytest.mark.slow
def test_a_model_of_another_format_is_compressed_and_compared_with_itself(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "small.onnx")
    recipe = recipe_of(
        "cluster bits=5",
        model=str(model),
        input_shapes=(),
        train_data="",
        data=str(write_data(model, tmp_path / "eval.npz")),
        calibration=str(write_data(model, tmp_path / "train.npz", seed=2)),
    )
    result = compress_model(recipe, out=tmp_path / "out")
    assert result.exit_code == 0, str(result)
    first, last = result.summary.rows
    assert first.result.metric is not None and first.result.metric.value == 1.0
    assert last.result.metric is not None and last.result.metric.value > 0.8
    assert result.summary.source["format"] == "onnx"


@pytest.mark.slow
def test_a_teacher_may_be_a_file_of_another_format(tmp_path: Path) -> None:
    teacher = write_onnx(tmp_path / "teacher.onnx")
    recipe = recipe_of(
        "distill epochs=3 alpha=1.0", teacher=str(teacher), data=str(write_data(teacher, tmp_path / "e.npz"))
    )
    result = compress_model(recipe, out=tmp_path / "out")
    assert result.error is None
    assert result.summary.conditions["teacher"] == str(teacher)
    facts = result.summary.steps[-1].facts
    assert facts["same class as teacher"] > facts["same class as teacher before"]  # type: ignore[operator]


@pytest.mark.slow
def test_a_later_step_that_fails_leaves_the_earlier_ones_reported(tmp_path: Path) -> None:
    recipe = recipe_of(
        "cluster bits=4", "sparsify sparsity=0.5 epochs=1", "entropy", train="tests.small_training:train_to_nan",
    )  # fmt: skip
    result = compress_model(recipe, out=tmp_path / "out")
    assert isinstance(result.error, TrainingError) and result.exit_code == 2
    assert [row.step for row in result.summary.rows] == ["original", "01-cluster"]
    assert "02-sparsify failed" in result.summary.failure and "--resume" in result.summary.failure
    assert "the chain ended early" in str(result)
    mended = recipe_of(
        "cluster bits=4", "sparsify sparsity=0.5 epochs=1", "entropy", train="tests.small_training:train"
    )
    again = compress_model(mended, out=tmp_path / "out", resume=True)
    assert again.error is None
    assert [str(step.state) for step in again.summary.steps] == ["done", "kept", "done", "done"]


def test_the_first_step_that_fails_is_raised_and_nothing_is_lost(tmp_path: Path) -> None:
    recipe = recipe_of("sparsify sparsity=0.5 epochs=1", train="tests.small_training:train_and_crash")
    with pytest.raises(TrainingError, match=r"step 01-sparsify failed(.|\n)*no more batches(.|\n)*--resume"):
        compress_model(recipe, out=tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds steps of an earlier compression \(01-sparsify\).*--resume"):
        compress_model(recipe, out=tmp_path / "out")


def test_a_teacher_of_another_shape_is_refused_before_any_step(tmp_path: Path) -> None:
    recipe = recipe_of("distill epochs=1", teacher="tests.small_training:create_for_five")
    with pytest.raises(FormatMismatchError, match=r"differ in their outputs: .*\[\?, 5\] and .*\[\?, 10\]"):
        compress_model(recipe, out=tmp_path / "out")
    assert not (tmp_path / "out" / "steps").exists()


def test_without_any_samples_nothing_is_made_up(tmp_path: Path) -> None:
    recipe = recipe_of("cluster bits=4", train_data="", data="")
    with pytest.raises(DataError, match=r"there are no samples: give data \(--data\)"):
        compress_model(recipe, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_data_without_labels_are_refused_before_any_step(tmp_path: Path) -> None:
    with np.load(sample.CALIBRATION_DATA) as data:
        np.savez(tmp_path / "train.npz", inputs=data["inputs"])
    recipe = recipe_of("cluster bits=4", "qat epochs=1", train_data=str(tmp_path / "train.npz"))
    with pytest.raises(DataError, match=r"train\.npz has no labels, and the built-in training"):
        compress_model(recipe, out=tmp_path / "out")
    assert not (tmp_path / "out" / "steps").exists()


@pytest.mark.slow
@pytest.mark.parametrize("has_data", [True, False])
def test_without_labels_the_outputs_are_compared_with_the_originals(has_data: bool, tmp_path: Path) -> None:
    with np.load(sample.EVAL_DATA) as data:
        np.savez(tmp_path / "samples.npz", inputs=data["inputs"][:64])
    samples = str(tmp_path / "samples.npz")
    recipe = recipe_of(
        "sparsify sparsity=0.95", train_data="", data=samples if has_data else "", calibration=samples
    )
    result = compress_model(recipe, out=tmp_path / "out")
    assert result.exit_code == 0, str(result)
    first, last = result.summary.rows
    assert first.result.metric is not None and first.result.metric.value > 0.9999
    assert last.result.metric is not None and last.result.metric.value < 0.95  # not the agreement with itself
    assert last.result.parity is not None and last.result.parity.cosine > 0.9999  # type: ignore[operator]
    assert "cosine" in str(result) and "accuracy is not measured" in str(result)


def test_a_quantized_file_that_becomes_float_is_refused(assets: Path, tmp_path: Path) -> None:
    model = assets / "models" / "tflite-micro" / "hello_world_int8.tflite"
    np.savez(tmp_path / "samples.npz", inputs=np.arange(-100, 100, dtype=np.int8).reshape(-1, 1))
    recipe = recipe_of(
        "cluster bits=4",
        model=str(model),
        input_shapes=(),
        train_data="",
        data=str(tmp_path / "samples.npz"),
    )
    with pytest.raises(
        FormatMismatchError, match=r"is w8a8 in the format tflite(.|\n)*Compress the float model"
    ):
        compress_model(recipe, out=tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds files that no build wrote"):
        compress_model(recipe_of("cluster bits=4"), out=tmp_path)


def _training_has_begun(out: Path) -> bool:
    return any((out / "steps").glob("*/checkpoints/*.safetensors"))


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def _steps(
    out: Path, names: tuple[str, ...], *arguments: object, env: dict[str, str]
) -> list[dict[str, object]]:
    """Compress until the last step is complete; return the records of the steps. What is measured after them is not
    waited for."""
    process = cli("compress", *DIGITS, *arguments, "--out", out, env=env)
    last = out / "steps" / names[-1] / "step.json"
    _wait_until(last.exists, process)
    process.kill()
    process.communicate()
    return [json.loads((out / "steps" / name / "step.json").read_text())["step"] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_compression_that_is_killed_goes_on_with_the_same_result(
    tmp_path: Path, number: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {"TMPDIR": str(temporary), "EDGEWRIGHT_CACHE": str(tmp_path / "cache")}
    steps = ("--step", "sparsify sparsity=0.6 epochs=6", "--step", "cluster bits=4")
    names = ("01-sparsify", "02-cluster")
    process = cli("compress", *DIGITS, *steps, "--out", tmp_path / "out", env=env)
    _wait_until(lambda: _training_has_begun(tmp_path / "out"), process)
    process.send_signal(number)
    _out, err = process.communicate()
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in err
    if number is signal.SIGINT:
        assert "run it again with --resume to go on" in err
        assert not [
            name for name in left_in(temporary) if not name.startswith("torchinductor_")
        ]  # torch's own
    refused = cli("compress", *DIGITS, *steps, "--out", tmp_path / "out", env=env)
    _out, err = refused.communicate()
    assert refused.returncode == 2 and "--resume" in err
    resumed = _steps(tmp_path / "out", names, *steps, "--resume", env=env)
    assert [step["state"] for step in resumed] == ["resumed", "done"]
    whole = _steps(tmp_path / "whole", names, *steps, env=env)
    assert [step["state"] for step in whole] == ["done", "done"]
    assert [step["sha256"] for step in whole] == [step["sha256"] for step in resumed]


@pytest.mark.slow
def test_a_child_that_is_killed_leaves_its_checkpoint(tmp_path: Path) -> None:
    import psutil

    steps = ("--step", "sparsify sparsity=0.6 epochs=6")
    process = cli("compress", *DIGITS, *steps, "--out", tmp_path / "out")
    _wait_until(lambda: _training_has_begun(tmp_path / "out"), process)
    for child in psutil.Process(process.pid).children():
        os.kill(child.pid, signal.SIGKILL)
    _out, err = process.communicate()
    assert process.returncode == 7, err
    assert "SIGKILL" in err and "--resume" in err
    assert _training_has_begun(tmp_path / "out")
    (again,) = _steps(tmp_path / "out", ("01-sparsify",), *steps, "--resume", env={})
    assert again["state"] == "resumed"


@pytest.mark.slow
def test_the_command_of_one_technique_is_a_chain_of_one_step(tmp_path: Path) -> None:
    process = cli("cluster", DIGITS[0], "bits=4", *DIGITS[1:], "--out", tmp_path / "out")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "01-cluster" in out and "edgewright build" in out
    assert (tmp_path / "out" / "steps" / "01-cluster" / "model.pt2").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("compress", "model.pt2"), 2, "one of the two"),
        (("compress", "model.pt2", "--recipe", "a.toml", "--step", "prune macs=0.5"), 2, "one of the two"),
        (("compress", "--recipe", "a.toml", "--data", "b.npz"), 2, "--data: say that in the recipe"),
        (("compress", "--recipe", "none.toml"), 2, "cannot be read"),
        (("compress", "--step", "prune macs=0.5"), 2, "MODEL is missing"),
        (("compress", "model.pt2", "--step", "prune macs=1.5"), 2, "macs is 1.5"),
        (("prune", "model.pt2", "macs=0.5", "step=2"), 2, "Did you mean 'steps'"),
        (("prune", "model.pt2", "0.5"), 2, "NAME=VALUE"),
        (("qat", "model.pt2", "epochs=1"), 2, "nothing to train with"),
        (("cluster", "none.pt2", "bits=4"), 2, "does not exist"),
        (("cluster", "none.pt2", "bits=9"), 2, "9"),
        (("sparsify", "none.pt2", "sparsity=0.5", "--to", "onnx"), 2, "unknown runtime 'onnx'"),
    ],
)
def test_bad_requests_end_with_one_clear_message(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "edgewright.cli", *arguments, "--out", "out"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO_ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == code, process.stderr
    assert words in process.stderr and "Traceback" not in process.stderr
    assert process.stdout == ""


@pytest.mark.parametrize("command", ["prune", "sparsify", "cluster", "distill", "qat", "repair"])
def test_help_tells_the_options_of_the_pass(command: str) -> None:
    process = cli(command, "--help")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"Options of {command}" in out and "default" in out


def test_data_travel_to_a_worker_as_they_are(tmp_path: Path) -> None:
    from edgewright.core.errors import IntegrityError
    from edgewright.data.datasets import make_dataset
    from edgewright.data.handover import hand_over, take_over

    arrays = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.arange(3)}
    dataset = make_dataset(arrays, np.array([1, 0, 2]), description="three")
    record = hand_over(dataset, tmp_path / "data")
    found = take_over(json.loads(json.dumps(record)))
    assert list(found.inputs) == ["a", "b"] and found.sha256 == dataset.sha256
    assert all((found.inputs[name] == arrays[name]).all() for name in arrays)
    assert found.labels is not None and found.labels.tolist() == [1, 0, 2]
    (tmp_path / "data" / "1.npy").write_bytes(b"short")
    with pytest.raises(IntegrityError, match="cannot be read"):
        take_over(record)


def test_neither_help_nor_a_recipe_loads_a_vendor(tmp_path: Path) -> None:
    recipe = tmp_path / "compress.toml"
    recipe.write_text('edgewright_compression = 1\nmodel = "m.pt2"\n[[step]]\npass = "prune"\nmacs = 0.5\n')
    code = (
        "import sys; from edgewright.cli.main import run_command_line; from pathlib import Path; "
        "run_command_line(['prune', '--help']); from edgewright import CompressionRecipe; "
        f"CompressionRecipe.read(Path({str(recipe)!r})); "
        "print('LOADED', sorted({'torch', 'numba', 'onnxruntime', 'torchao'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("LOADED []")
