"""CTC decoding, and tokens of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.processing.one_step import run

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.ctc import Ctc
from edgewright.processing.step import Frame
from edgewright.processing.text import Tokenize
from edgewright.processing.values import ValueType

TEXT = (ValueType(kind="text", shape=(), dtype="string"),)


def scores(path: list[int], classes: int = 4) -> Array:
    return np.eye(classes, dtype=np.float32)[path]


@pytest.mark.parametrize(
    ("path", "blank", "expected"),
    [
        ([0, 1, 1, 0, 1, 2, 2, 0], 0, [1, 1, 2]),
        ([0, 0, 0], 0, []),
        ([3, 1, 3, 3, 0], -1, [1, 0]),
        ([1, 2, 1], 3, [1, 2, 1]),
        ([2], 0, [2]),
    ],
)
def test_repeats_are_joined_and_blanks_left_out(path: list[int], blank: int, expected: list[int]) -> None:
    assert run(Ctc(blank=blank), scores(path), kind="tensor").tolist() == expected


def test_nan_is_never_the_best() -> None:
    rows = np.array([[0.1, np.nan, 0.3], [np.nan] * 3], np.float32)
    assert run(Ctc(), rows, kind="tensor").tolist() == [2]


def test_a_blank_that_is_no_class_is_refused() -> None:
    with pytest.raises(UsageError, match="4 classes"):
        run(Ctc(blank=4), scores([1]), kind="tensor")
    with pytest.raises(UsageError, match="-2"):
        Ctc(blank=-2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a tokenizer of three words, which cuts at 3 tokens unless it is told otherwise."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "bird", "sings"]
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(max_length=3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def tokens(step: Tokenize, text: str, folder: Path) -> list[int]:
    made = step.apply((np.asarray(text),), Frame(given=TEXT, folder=folder))
    promised = step.result(TEXT)
    assert made.shape == promised.shape and str(made.dtype) == promised.dtype
    return list(made.tolist())


@pytest.mark.toolchain("tokenizers")
def test_a_text_becomes_tokens_a_mask_and_segments(folder: Path) -> None:
    text = "The bird barks"
    assert tokens(Tokenize(length=7), text, folder) == [1, 4, 5, 3, 2, 0, 0]
    assert tokens(Tokenize(length=7, fill=9, dtype="int32"), text, folder)[-1] == 9
    assert tokens(Tokenize(length=7, give="mask"), text, folder) == [1, 1, 1, 1, 1, 0, 0]
    assert tokens(Tokenize(length=7, give="segments"), text, folder) == [0, 0, 0, 0, 1, 0, 0]
    assert tokens(Tokenize(length=2, special=False), text, folder) == [4, 5]
    assert tokens(Tokenize(length=3), "", folder) == [1, 2, 0]
    # Cut as the file's rules say: its own marks stay.
    assert tokens(Tokenize(length=4), text, folder) == [1, 4, 5, 2]


@pytest.mark.toolchain("tokenizers")
def test_a_file_that_is_no_tokenizer_is_refused(folder: Path) -> None:
    (folder / "broken.json").write_text('{"version": "1.0", "model": 3}')
    with pytest.raises(IntegrityError, match=r"broken\.json"):
        tokens(Tokenize(file="broken.json"), "the", folder)
    with pytest.raises(UsageError, match="tokenizer file there"):
        tokens(Tokenize(file="absent.json"), "the", folder)


@pytest.mark.parametrize("options", [{"file": "../up.json"}, {"file": ""}, {"length": 0}, {"fill": -1}])
def test_options_out_of_range_are_refused(options: dict[str, str | int]) -> None:
    with pytest.raises(UsageError, match="tokenize"):
        Tokenize(**options)  # type: ignore[arg-type]


def test_only_a_text_has_tokens() -> None:
    with pytest.raises(UsageError, match="a text"):
        Tokenize().result((ValueType(kind="audio", shape=(3,), dtype="float32"),))
