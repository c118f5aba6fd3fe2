"""Raw inputs in, typed results out: in Python, and by `edgewright predict` and `edgewright processing`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.colour_model import colour_specification, plain_image, write_colour_model
from tests.command_line import cli

import edgewright
from edgewright.core.errors import DataError, UsageError
from edgewright.prediction import Predictor
from edgewright.processing.results import Classes
from edgewright.processing.specification import read_specification, write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def run_cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    process = cli(*arguments)
    out, err = process.communicate()
    return subprocess.CompletedProcess(list(map(str, arguments)), process.returncode, out, err)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model, with its processing beside it and three pictures."""
    folder = tmp_path_factory.mktemp("colours")
    write_specification(colour_specification(), folder)
    for name, colour in (("red", (250, 10, 10)), ("green", (0, 200, 60)), ("blue", (10, 20, 240))):
        (folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(plain_image(*colour)).save(folder / "pictures" / f"{name}.png")
    return write_colour_model(folder / "colours.onnx")


@pytest.fixture(scope="module")
def predictor(model: Path) -> Iterator[Predictor]:
    with edgewright.load(model) as opened:
        yield opened


def test_a_picture_gives_its_colour(predictor: Predictor, model: Path) -> None:
    for name in ("red", "green", "blue"):
        found = predictor(model.parent / "pictures" / f"{name}.png")["colours"]
        assert isinstance(found, Classes)
        assert found.labels[0].name == name


def test_pixels_give_what_their_file_gives(predictor: Predictor, model: Path) -> None:
    of_file = predictor(model.parent / "pictures" / "red.png").to_json()
    assert predictor(plain_image(250, 10, 10)).to_json()["colours"] == of_file["colours"]


def test_scores_are_those_of_the_formula(predictor: Predictor) -> None:
    found = predictor(plain_image(255, 0, 0))["colours"]
    assert isinstance(found, Classes)
    raised = np.exp(np.array([2.0, -2.0, -2.0]))
    assert [label.score for label in found.labels] == pytest.approx(raised / raised.sum(), abs=1e-6)


@pytest.mark.parametrize(
    "given", [Path("nothing.png"), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_what_is_no_image_is_refused(predictor: Predictor, given: Path) -> None:
    with pytest.raises(DataError):
        predictor(given)


def test_a_model_without_processing_is_refused_with_the_presets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="these take its tensors: imagenet"):
        edgewright.load(write_colour_model(tmp_path / "bare.onnx"))


def test_a_specification_for_another_model_is_refused(tmp_path: Path, model: Path) -> None:
    text = (model.parent / "processing.toml").read_text().replace('"pixels"', '"pixel"')
    (tmp_path / "other.toml").write_text(text)
    (tmp_path / "labels.txt").write_text("red\n")
    with pytest.raises(UsageError, match="pixels"):
        edgewright.load(model, processing=tmp_path / "other.toml")


def test_the_command_prints_draws_and_writes_lines(model: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    drawn_in = tmp_path / "drawn"
    done = run_cli("predict", model, model.parent / "pictures", "--out", lines, "--draw", drawn_in)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["colours"][0]["name"] for record in records] == ["blue", "green", "red"]
    with Image.open(drawn_in / "red.png") as drawn:
        assert drawn.width >= 400
        assert len(set(drawn.convert("RGB").resize((64, 64)).tobytes())) > 3  # a label lies on the one colour


def test_the_command_goes_on_after_a_broken_file_and_fails_at_the_end(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    Image.fromarray(plain_image(0, 250, 0)).save(tmp_path / "b.png")
    done = run_cli("predict", str(model), str(tmp_path), "--json")
    assert done.returncode == DataError.exit_code
    assert done.stderr.count("a.png") == 1
    broken, good = map(json.loads, done.stdout.splitlines()[:2])
    assert broken["input"].endswith("a.png") and "decoded" in broken["error"]
    assert good["colours"][0]["name"] == "green"


def test_files_of_the_same_name_are_drawn_apart(model: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        Image.fromarray(plain_image(0, 250, 0)).save(tmp_path / "pictures" / folder / "same.png")
    done = run_cli("predict", model, tmp_path / "pictures", "--draw", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == ["same-2.png", "same.png"]


def test_a_picture_of_another_format_is_not_taken_for_a_folder(model: Path, tmp_path: Path) -> None:
    done = run_cli("predict", model, model.parent / "pictures" / "red.png", "--draw", tmp_path / "x.webp")
    assert done.returncode == UsageError.exit_code
    assert ".png" in done.stderr and not (tmp_path / "x.webp").exists()


@pytest.mark.parametrize("lines", ["red\ngreen\n", "none\nred\ngreen\nblue\n"])
def test_labels_are_one_a_class(model: Path, tmp_path: Path, lines: str) -> None:
    (tmp_path / "names.txt").write_text(lines)
    with pytest.raises(UsageError, match=r"3 classes, but names.txt has [24] labels"):
        edgewright.load(model, labels=tmp_path / "names.txt")


def test_a_word_that_is_no_preset_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match=r"'imagenit'.*Did you mean 'imagenet'"):
        edgewright.load(model, processing="imagenit")


def test_the_processing_is_shown_and_written(model: Path, tmp_path: Path) -> None:
    shown = run_cli("processing", str(model))
    assert shown.returncode == 0, shown.stderr
    assert "# tensor pixels: image float32[3, 8, 8]" in shown.stdout
    done = run_cli("processing", str(model), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert read_specification(tmp_path) == colour_specification()


def test_a_build_prepares_pictures_and_gives_each_artifact_the_processing(
    model: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "data"
    for index, name in enumerate(("red", "green", "blue")):
        for number in range(2):
            (pictures / f"{index}_{name}").mkdir(parents=True, exist_ok=True)
            colour = [40 + 7 * number, 40, 40]
            colour[index] = 210 - 9 * number
            Image.fromarray(plain_image(*colour)).save(pictures / f"{index}_{name}" / f"{number}.png")
    built = edgewright.build(
        model,
        data=pictures,
        processing=model.parent,
        to=("onnxruntime",),
        precision=("fp32",),
        out=tmp_path / "out",
        use_cache=False,
    )
    (row,) = built.results
    assert row.metric is not None and row.metric.value == 1.0
    with edgewright.load(tmp_path / "out") as opened:  # which holds one artifact
        found = opened(plain_image(0, 0, 255))["colours"]
    assert isinstance(found, Classes) and found.labels[0].name == "blue"


def test_of_several_artifacts_one_is_to_be_named(model: Path, tmp_path: Path) -> None:
    for name in ("litert-fp32", "onnxruntime-fp32"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
        (tmp_path / "artifacts" / name / "artifact.json").write_text("{}")
    with pytest.raises(UsageError, match=r"2 artifacts. Name one: .*litert-fp32, .*onnxruntime-fp32"):
        edgewright.load(tmp_path)


def test_names_of_files_do_not_steer_the_terminal(model: Path, tmp_path: Path) -> None:
    picture = (model.parent / "pictures" / "red.png").read_bytes()
    for name in ("a\nb.png", "\x1b[31mc.png", "\udcffd.png"):
        (tmp_path / name).write_bytes(picture)
    (tmp_path / "\x1b[32mbroken.png").write_bytes(b"no picture")
    done = run_cli("predict", model, tmp_path)
    assert done.returncode == DataError.exit_code
    assert "\x1b" not in done.stdout + done.stderr
    assert [name for name in (r"a\nb.png", r"\x1b[31mc.png", r"\udcffd.png") if name in done.stdout] == [
        r"a\nb.png", r"\x1b[31mc.png", r"\udcffd.png",
    ]  # fmt: skip
    assert r"\x1b[32mbroken.png" in done.stderr
