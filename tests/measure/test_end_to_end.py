"""Timing from a raw input to the result: the processing in C around a model in its runtime."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.colour_model import SIZE, colour_specification, plain_image, write_colour_model

import edgewright
from edgewright.artifact_files import read_artifact
from edgewright.benchmark import Benchmark, bench
from edgewright.core.errors import UnavailableError, UsageError
from edgewright.measure import operations
from edgewright.measure.end_to_end import build_processing, open_around, stage_times
from edgewright.prediction import specify
from edgewright.processing.specification import PROCESSING_NAME, write_specification
from edgewright.workers.pool import Worker

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler is installed"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    write_specification(colour_specification(), folder)
    return write_colour_model(folder / "colours.onnx")


@needs_compiler
def test_what_is_timed_gives_the_results_of_a_prediction(model: Path, tmp_path: Path) -> None:
    raws = [{"image": plain_image(250, 10, 10)}, {"image": plain_image(10, 20, 240, height=40)}]
    built = build_processing(specify(model), raws, tmp_path, description="two pictures")
    assert [each["pixels"].shape for each in built.tensors] == [(1, 3, SIZE, SIZE)] * 2
    with edgewright.load(model) as predictor:
        expected = [predictor.arrays(raw)["colours"] for raw in raws]
    artifact = read_artifact(model)
    # In this process, so that its session can be asked for what it gives.
    open_around(_Here(), artifact, built)  # type: ignore[arg-type]
    try:
        opened = operations._model()
        for raw, want in zip(opened.batches, expected, strict=True):
            np.testing.assert_allclose(opened.session.run(raw)["colours"], want, atol=1e-6)
        block = operations.time_block({"count": 3})
        stages = stage_times({"count": 3})
    finally:
        operations.close_artifact({})
    wall = block["wall_ns"]
    assert isinstance(wall, list) and min(wall) > 0
    (rows,) = stages.values()
    assert isinstance(rows, list) and len(rows) == 3
    for row, whole in zip(rows, wall, strict=True):
        assert min(row) > 0 and sum(row) <= whole


class _Here:
    """A worker that is this process."""

    def call(self, function: str, arguments: dict[str, object]) -> dict[str, object]:
        from edgewright.measure.end_to_end import open_processed

        assert function == "edgewright.measure.end_to_end:open_processed"
        return open_processed(arguments)


@needs_compiler
def test_a_worker_opens_what_was_built_without_a_compiler(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {"image": plain_image(1, 2, 3)}
    built = build_processing(specify(model), [raw], tmp_path, description="one picture")
    monkeypatch.setenv("PATH", str(tmp_path))
    with Worker("here") as worker:
        open_around(worker, read_artifact(model), built)
        answer = worker.call("edgewright.measure.operations:time_block", {"count": 3})
    wall = answer["wall_ns"]
    assert isinstance(wall, list) and len(wall) == 3


def test_without_a_compiler_it_cannot_be_built(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="no C compiler"):
        build_processing(specify(model), [{"image": plain_image(1, 2, 3)}], tmp_path, description="one")


def test_a_sample_that_nothing_takes_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copy(model, tmp_path)
    with pytest.raises(UsageError, match=f"no artifact has a {PROCESSING_NAME} beside it"):
        bench([tmp_path / model.name], launches=3, sample=model)
    with pytest.raises(UsageError, match="cannot be decoded"):
        bench([model], launches=3, sample=model)


@pytest.mark.slow
@needs_compiler
def test_end_to_end_stands_beside_inference_alone(model: Path, tmp_path: Path) -> None:
    shutil.copy(model, tmp_path)
    specification = colour_specification()
    other = replace(specification.tensors[0], name="no_such_tensor")
    write_specification(replace(specification, tensors=(other,)), tmp_path)
    found = bench([model, tmp_path / model.name, model], launches=3)
    assert isinstance(found, Benchmark)
    first, broken, again = found.latencies
    assert set(found.end_to_end) == {first, again}
    assert "no_such_tensor" in found.unprocessed[broken]
    # The model is a mean of 192 numbers; a picture of 640x480 is resized around it.
    whole, alone = found.end_to_end[first].cpu_ms_p50, found.latencies[first].cpu_ms_p50
    assert whole is not None and alone is not None and whole > alone
    assert [c.name for c in found.comparisons] == [broken, again, f"{again}, end to end"]
    for key in ("end_to_end_ms", "stages_ms"):
        record = found.to_json()[key]
        assert isinstance(record, dict) and set(record) == {first, again}
    split = found.stages[first]
    assert min(split.before, split.model, split.behind) > 0
