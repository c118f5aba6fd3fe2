"""compress.toml: strict, checked before any work starts, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.compression_recipe import CompressionRecipe, CompressionStep
from edgewright.core.errors import FormatMismatchError, RecipeError, UnknownNameError, UsageError

WHOLE = """\
edgewright_compression = 1
model = "pkg.models:create"
weights = "model.safetensors"
input_shapes = ["1x1x8x8"]
train_data = "train.npz"
data = "eval.npz"
runtimes = ["onnxruntime"]
seed = 3

[training]
learning_rate = 0.02

[[step]]
pass = "prune"
macs = 0.5

[[step]]
pass = "qat"
epochs = 2
training = { learning_rate = 0.001 }

[[step]]
pass = "entropy"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "compress.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_with_paths_beside_it(tmp_path: Path) -> None:
    (tmp_path / "eval.npz").touch()
    recipe = CompressionRecipe.read(written(tmp_path, WHOLE))
    assert recipe.model == "pkg.models:create"
    assert recipe.weights == str(tmp_path / "model.safetensors")
    assert recipe.data == str(tmp_path / "eval.npz")
    assert recipe.import_from == str(tmp_path)
    assert [step.name for step in recipe.steps] == ["prune", "qat", "entropy"]
    assert recipe.steps[0].record()["macs"] == 0.5
    assert recipe.packs and len(recipe.passes) == 2
    rates = [getattr(recipe.training_options(step), "learning_rate", None) for step in recipe.passes]
    assert rates == [0.02, 0.001]


def test_the_model_of_the_command_line_takes_the_place_of_the_recipes(tmp_path: Path) -> None:
    assert CompressionRecipe.read(written(tmp_path, WHOLE), model="other.onnx").model == "other.onnx"


def test_the_recipe_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    recipe = CompressionRecipe.read(written(tmp_path, WHOLE))
    other = tmp_path / "other"
    other.mkdir()
    recipe.save(other / "compress.toml")
    assert CompressionRecipe.read(other / "compress.toml") == recipe


def test_folders_of_idx_files_keep_their_prefix(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    text = WHOLE.replace('"eval.npz"', '"digits:t10k"').replace('"train.npz"', '"pkg.data:train"')
    recipe = CompressionRecipe.read(written(tmp_path, text))
    assert recipe.data == f"{tmp_path / 'digits'}:t10k"
    assert recipe.train_data == "pkg.data:train"


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("edgewright_compression = 1", "edgewright_compression = 2", RecipeError, "expected 1"),
        ("edgewright_compression = 1", "", RecipeError, "None; expected 1"),
        ("edgewright_compression = 1", "edgewright_compression = true", RecipeError, "expected 1"),
        ("seed = 3", "sede = 3", UnknownNameError, "Did you mean 'seed'"),
        ("seed = 3", 'seed = "3"', RecipeError, "a whole number is expected"),
        ("seed = 3", "seed = -1", RecipeError, "seed is -1"),
        ("seed = 3", "calibration_count = 0", RecipeError, "calibration_count is 0"),
        ("seed = 3", 'train = "train"', RecipeError, "package.module:function"),
        ("seed = 3", 'teacher_weights = "t.safetensors"', RecipeError, "no teacher"),
        ('runtimes = ["onnxruntime"]', "runtimes = []", RecipeError, "at least one"),
        ('runtimes = ["onnxruntime"]', 'runtimes = ["onnx"]', UnknownNameError, "unknown runtime 'onnx'"),
        ('runtimes = ["onnxruntime"]', 'runtimes = ["litert", "litert"]', RecipeError, "each once"),
        ('runtimes = ["onnxruntime"]', 'runtimes = "litert"', RecipeError, "a list of texts"),
        ('pass = "prune"', 'pass = "prun"', UnknownNameError, "Did you mean 'prune'"),
        ('pass = "prune"', "pass = 3", RecipeError, "the name of a pass is expected"),
        ("macs = 0.5", "mac = 0.5", UnknownNameError, "Did you mean 'macs'"),
        ("macs = 0.5", "macs = 1.5", UsageError, "1.5"),
        ("macs = 0.5", "macs = -0.5", UsageError, "-0.5"),
        ("macs = 0.5", "macs = nan", UsageError, "nan"),
        ("macs = 0.5", 'macs = "half"', UsageError, "'half'"),
        ("learning_rate = 0.02", "learning_rat = 0.02", UnknownNameError, "Did you mean 'learning_rate'"),
        ("learning_rate = 0.02", "learning_rate = -1.0", UsageError, "learning_rate is -1"),
        ("learning_rate = 0.001", "rate = 0.001", UnknownNameError, "training 'rate'"),
        ('train_data = "train.npz"', "", RecipeError, "qat is to train, but there is nothing to train with"),
        ('model = "pkg.models:create"', "", RecipeError, "no key 'model'"),
        ("[[step]]", "[[steps]]", UnknownNameError, "Did you mean 'step'"),
        ("[training]", "[trainig]", UnknownNameError, "Did you mean 'training'"),
        ("[training]", "[training", RecipeError, "is not TOML"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(
    tmp_path: Path, old: str, new: str, error: type[UsageError], words: str
) -> None:
    assert old in WHOLE
    with pytest.raises(error) as caught:
        CompressionRecipe.read(written(tmp_path, WHOLE.replace(old, new)))
    assert words in str(caught.value)


def test_a_recipe_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no step.*\[\[step\]\]"):
        CompressionRecipe.read(written(tmp_path, WHOLE.partition("[[step]]")[0]))
    with pytest.raises(RecipeError, match="tables"):
        CompressionRecipe.read(
            written(tmp_path, 'edgewright_compression = 1\nmodel = "a.pt2"\nstep = "prune"\n')
        )


def test_a_missing_and_a_huge_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        CompressionRecipe.read(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="larger than"):
        CompressionRecipe.read(written(tmp_path, "#" * ((1 << 20) + 1)))


def test_packing_is_the_last_step() -> None:
    steps = tuple(map(CompressionStep.parse, ["entropy", "prune macs=0.5"]))
    with pytest.raises(RecipeError, match="Make it the last step"):
        CompressionRecipe(model="m.pt2", steps=steps)


def test_packing_alone_is_no_compression() -> None:
    with pytest.raises(RecipeError, match="edgewright pack"):
        CompressionRecipe(model="m.pt2", steps=(CompressionStep.parse("entropy"),))


def test_the_chain_is_checked_by_precision() -> None:
    steps = tuple(map(CompressionStep.parse, ["qat epochs=0", "prune macs=0.5"]))
    recipe = CompressionRecipe(model="m.pt2", steps=steps)
    with pytest.raises(FormatMismatchError, match=r"'prune' reads fp32, but the model after 'qat' is w8a8"):
        recipe.check_chain("fp32")
    with pytest.raises(FormatMismatchError, match=r"but the original is w8a8"):
        CompressionRecipe(model="m.pt2", steps=steps[1:]).check_chain("w8a8")
    CompressionRecipe(model="m.pt2", steps=steps[::-1]).check_chain("fp32")
    steps = tuple(map(CompressionStep.parse, ["repair", "qat epochs=0"]))
    with pytest.raises(FormatMismatchError, match=r"'qat' reads fp32, but the model after 'repair' is w8a8"):
        CompressionRecipe(model="m.pt2", steps=steps).check_chain("fp32")


@pytest.mark.parametrize("text", ["", "   ", "prune 'macs"])
def test_a_step_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        CompressionStep.parse(text)
