"""The C99 decoder gives what Python's gives, and no damaged container leads it astray: run with sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from tests.ewz.test_hostile import container
from tests.ewz.test_roundtrip import KINDS, packed, weights

from edgewright.ewz.rest import Method

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
UNSUPPORTED = 2


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    source = Path(str(files("edgewright.ewz"))) / "c"
    program = tmp_path_factory.mktemp("c") / "ewz"
    command = ["gcc", "-std=c99", "-O2", "-g", *WARNINGS, *SANITIZERS, f"-I{source}"]
    inputs = [source / "ewz.c", Path(__file__).with_name("ewz_main.c")]
    built = subprocess.run([*command, *inputs, "-o", program], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return program


def decode(program: Path, container_bytes: bytes, folder: Path) -> tuple[int, bytes]:
    (folder / "in.ewz").write_bytes(container_bytes)
    ran = subprocess.run(
        [program, folder / "in.ewz", folder / "out"], capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""
    return ran.returncode, (folder / "out").read_bytes() if ran.returncode == 0 else b""


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back(kind: str, decoder: Path, tmp_path: Path) -> None:
    content = b"begin" + weights(kind) + b"end"
    assert decode(decoder, packed(content, tmp_path), tmp_path) == (0, content)


def test_frames_follow_one_another(decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright.ewz.writing.FRAME_BYTES", 30_000)
    content = weights("int8", 50_000) + weights("float32", 20_000) + weights("text")
    assert decode(decoder, packed(content, tmp_path), tmp_path) == (0, content)


def test_several_files_and_an_empty_one(decoder: Path, tmp_path: Path) -> None:
    assert decode(decoder, container(tmp_path), tmp_path) == (
        0,
        (tmp_path / "model.bin").read_bytes() + (tmp_path / "model.xml").read_bytes(),
    )
    assert decode(decoder, packed(b"", tmp_path), tmp_path) == (0, b"")


def test_real_models(decoder: Path, tmp_path: Path, assets: Path) -> None:
    for name in ("mlperf-tiny/kws_dscnn_int8.tflite", "ultraface-slim/version-slim-320.onnx"):
        content = (assets / "models" / name).read_bytes()
        assert decode(decoder, packed(content, tmp_path, Path(name).name), tmp_path) == (0, content)


def test_every_damage_is_detected(decoder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.ewz").write_bytes(container(tmp_path))
    ran = subprocess.run(
        [decoder, tmp_path / "in.ewz", "--damage"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_what_it_does_not_read_is_said(
    decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright.ewz.rest._lzma", lambda rest, *_: rest + b"longer")
    from edgewright.ewz.rest import pack_rest

    assert pack_rest(bytes(500))[0] is Method.ZSTD
    assert decode(decoder, packed(b"some text " * 50, tmp_path), tmp_path)[0] == UNSUPPORTED
