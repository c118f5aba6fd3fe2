"""Damaged and hostile model files: one clear error each, no crash, no code run."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import pytest
from tests.conftest import SEED

from edgewright.core.errors import (
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    UsageError,
    WorkerError,
)
from edgewright.sources import load
from edgewright.workers.pool import Worker

pytestmark = pytest.mark.toolchain("torch", "onnx", "ai_edge_litert")


@pytest.mark.parametrize("name", ["m.pt2", "m.onnx", "m.tflite", "m.pth"])
def test_missing_and_empty_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(UsageError, match="does not exist"):
        load(str(path), workdir=tmp_path)
    path.touch()
    with pytest.raises(UsageError, match="is empty"):
        load(str(path), workdir=tmp_path)
    with pytest.raises(UsageError, match="not a file"):
        load(str(tmp_path), workdir=tmp_path)


@pytest.mark.parametrize("kind", ["pt2", "onnx", "tflite"])
def test_truncated_files(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, read, worker: Worker
) -> None:
    content = request.getfixturevalue(f"tiny_{kind}").read_bytes()
    read(request.getfixturevalue(f"tiny_{kind}"))
    pid = worker.pid
    for part in (0.02, 0.2, 0.5, 0.8, 0.97):
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(content[: max(1, int(part * len(content)))])
        with pytest.raises((FormatMismatchError, IntegrityError)) as caught:
            read(path)
        _is_one_clear_line(caught.value)
    assert worker.pid == pid


@pytest.mark.parametrize("kind", ["pt2", "onnx", "tflite"])
def test_mutated_files_never_crash_the_worker(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, read, worker: Worker
) -> None:
    content = request.getfixturevalue(f"tiny_{kind}").read_bytes()
    random_source = random.Random(SEED)
    read(request.getfixturevalue(f"tiny_{kind}"))
    pid = worker.pid
    refused = 0
    for number in range(60):
        mutated = bytearray(content)
        for _ in range(random_source.choice((1, 4, 32))):
            mutated[random_source.randrange(len(mutated))] = random_source.randrange(256)
        if number % 3 == 0:
            start = random_source.randrange(len(mutated) - 8)
            mutated[start : start + 4] = random_source.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 4))
        path = tmp_path / f"mutated.{kind}"
        path.write_bytes(mutated)
        error = _error_of(read, path)
        if error is not None:
            refused += 1
            assert not isinstance(error, WorkerError), f"mutation {number}: {error}"
            _is_one_clear_line(error)
    assert worker.pid == pid
    assert refused >= 10


def test_content_that_is_not_what_the_name_says(tiny_tflite: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_tflite.read_bytes())
    with pytest.raises(FormatMismatchError, match="its content is a LiteRT flatbuffer"):
        load(str(path), workdir=tmp_path)
    text = tmp_path / "model.txt"
    text.write_text("hello, this is no model")
    with pytest.raises(FormatMismatchError, match="in no format that is read here"):
        load(str(text), workdir=tmp_path)


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("how", ["torch.save", "pickle.dump"])
def test_a_pickle_of_code_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    import torch

    marker, path = tmp_path / "it-ran", tmp_path / "model.pt"
    evil = {"state_dict": {"w": torch.zeros(1)}, "extra": _Evil(marker)}
    if how == "torch.save":
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil))
    with pytest.raises(UsageError, match=r"not a plain state dict.*(posix|os)\.system") as caught:
        load(str(path), workdir=tmp_path)
    _is_one_clear_line(caught.value)
    with pytest.raises(UsageError, match="refused"):
        load("tests.sources.models_under_test:tiny", workdir=tmp_path, weights=path, input_shapes=["1x3x8x8"])
    assert not marker.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    import torch
    from tests.sources import models_under_test

    path = tmp_path / "whole.pt"
    torch.save(models_under_test.tiny(), path)
    with pytest.raises(UsageError, match=r"tests\.sources\.models_under_test\.Tiny"):
        load(str(path), workdir=tmp_path)


def test_a_state_dict_is_no_model(tmp_path: Path) -> None:
    import torch
    from tests.sources import models_under_test

    path = tmp_path / "weights.pth"
    torch.save(models_under_test.tiny().state_dict(), path)
    with pytest.raises(UsageError, match=r"holds only weights.*--weights weights\.pth"):
        load(str(path), workdir=tmp_path)


def test_safetensors_is_no_model(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from tests.sources import models_under_test

    path = tmp_path / "weights.safetensors"
    save_file(models_under_test.tiny().state_dict(), path)
    with pytest.raises(UsageError, match="holds only weights"):
        load(str(path), workdir=tmp_path)


def test_torchscript_needs_shapes(assets: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not tell the shapes of its inputs"):
        load(str(assets / "models/silero-vad/silero_vad.jit"), workdir=tmp_path)


def test_options_that_do_not_belong_to_a_file(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--weights belongs to a package"):
        load(str(tiny_onnx), workdir=tmp_path, weights=tiny_onnx)
    with pytest.raises(UsageError, match="--signature belongs to a SavedModel"):
        load(str(tiny_onnx), workdir=tmp_path, signature="serve")
    with pytest.raises(UsageError, match="layout nhwc"):
        load(str(tiny_onnx), workdir=tmp_path, layout="nhwc")


def _is_one_clear_line(err: EdgewrightError) -> None:
    text = str(err)
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 700


def _error_of(read, path: Path) -> EdgewrightError | None:
    try:
        read(path)
    except EdgewrightError as err:
        return err
    return None


def test_weights_beside_their_graph_name_the_graph(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(b"\0" * 64)
    (tmp_path / "net.param").write_text("7767517\n")
    with pytest.raises(UsageError, match=r"weights of net\.param beside it"):
        load(str(tmp_path / "net.bin"), workdir=tmp_path / "work")
