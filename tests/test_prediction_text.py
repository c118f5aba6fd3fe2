"""A text from the command line to its tokens and a model's answer, with the tokenizer's file wherever it goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.command_line import cli

from edgewright.core.errors import RecipeError, UsageError
from edgewright.prediction import load, specify
from edgewright.processing.results import Values
from edgewright.processing.specification import read_specification, write_specification

pytestmark = pytest.mark.toolchain("tokenizers", "onnx", "onnxruntime")
TOML = """edgewright_processing = 1
task = "text"
inputs = [{ name = "text", kind = "text" }]
tensors = [{ name = "tokens", from = ["text"], steps = [{ step = "tokenize", file = "words.json", length = 4 }] }]
results = [{ name = "same_tokens", from = ["same"] }]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives back its tokens, with processing and tokenizer beside it."""
    import onnx
    from onnx import TensorProto, helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("words")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "bird": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "words.json"))
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, 4]) for name in ("tokens", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["tokens"], ["same"])], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, str(folder / "model.onnx"))
    (folder / "processing.toml").write_text(TOML)
    return folder / "model.onnx"


def test_a_text_is_predicted_with_the_tokenizer_beside_the_specification(model: Path) -> None:
    with load(model) as predictor:
        made = predictor("a bird barks")["same_tokens"]
    assert isinstance(made, Values) and made.array.tolist() == [1, 2, 0, 0]
    in_python = replace(specify(model).specification, folder=None)
    with load(model, processing=in_python) as predictor:  # the file then lies by the model
        made = predictor("bird")["same_tokens"]
    assert isinstance(made, Values) and made.array.tolist() == [2, 0, 0, 0]


def test_a_converted_model_has_its_tokenizer(model: Path, tmp_path: Path) -> None:
    options = ("--processing", model.parent / "processing.toml", "--out", tmp_path)
    code, said = _said("convert", model, "--to", "onnxruntime", *options)
    assert code == 0, said
    (words,) = tmp_path.rglob("words.json")
    assert words.read_bytes() == (model.parent / "words.json").read_bytes()
    code, said = _said("predict", tmp_path, "a bird", "bird a", "--json")
    assert code == 0, said
    records = [json.loads(line) for line in said.splitlines()]
    assert [record["same_tokens"] for record in records] == [[1, 2, 0, 0], [2, 1, 0, 0]]


def test_a_written_specification_has_its_tokenizer(model: Path, tmp_path: Path) -> None:
    code, said = _said("processing", model, "--out", tmp_path)
    assert code == 0, said
    again = read_specification(tmp_path)
    assert again == read_specification(model.parent)
    assert write_specification(again, tmp_path).parent == tmp_path  # onto itself
    assert (tmp_path / "words.json").stat().st_size > 0
    (tmp_path / "words.json").unlink()
    with pytest.raises(RecipeError, match=r"'words\.json'.*Put it beside"):
        load(model, processing=tmp_path)


def test_labels_do_not_overwrite_another_file(model: Path) -> None:
    specification = read_specification(model.parent)
    (result,) = specification.results
    for name in ("words.json", "processing.toml"):
        with pytest.raises(UsageError, match="a file of their own"):
            replace(specification, results=(replace(result, labels=("a",), labels_file=name),))


def _said(*arguments: object) -> tuple[int, str]:
    process = cli(*arguments)
    out, err = process.communicate()
    return process.returncode, out if process.returncode == 0 else out + err
