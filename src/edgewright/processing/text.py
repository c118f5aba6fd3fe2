"""From a text to the numbers of its tokens, by the tokenizer file of the Hugging Face `tokenizers` library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from edgewright.core.errors import IntegrityError, UnavailableError, UsageError
from edgewright.core.tensors import Array
from edgewright.processing.step import Frame, Step, is_file_name
from edgewright.processing.values import ValueType

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_LENGTH = 1 << 16
_MAX_FILE_BYTES = 64 << 20
_MAX_CHARACTERS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Tokenize(Step):
    """A text to its tokens: text -> codes [length]. In Python only; the C core refuses it.

    Attributes:
        file: `tokenizer.json` beside the specification.
        length: of the result: longer texts are cut as the file's own rules say, shorter ones filled up.
        give: the tokens' numbers, 1 where a token stands and 0 where it is filled up ("mask"), or the segments.
        fill: the number that fills up the tokens; "mask" and "segments" are filled with 0.
        special: put the file's own marks, such as [CLS], around the text.
        dtype: of the result.
    """

    name: ClassVar[str] = "tokenize"
    file: str = "tokenizer.json"
    length: int = 128
    give: Literal["tokens", "mask", "segments"] = "tokens"
    fill: int = 0
    special: bool = True
    dtype: Literal["int32", "int64"] = "int64"

    def __post_init__(self) -> None:
        if not 1 <= self.length <= _MAX_LENGTH or not 0 <= self.fill < 1 << 31:
            raise UsageError(
                f"step 'tokenize' has length {self.length} and fill {self.fill}; a length of 1..{_MAX_LENGTH} and "
                "a token's number are expected."
            )
        if not is_file_name(self.file):
            raise UsageError(
                f"step 'tokenize' has file {self.file!r:.80}; the name of a file beside the specification is expected."
            )

    def result(self, given: tuple[ValueType, ...]) -> ValueType:
        if given[0].kind != "text":
            raise self.refuse(given, "a text")
        return ValueType(kind="codes", shape=(self.length,), dtype=self.dtype)

    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def apply(self, values: tuple[Array, ...], frame: Frame) -> Array:
        text = str(values[0])
        if len(text) > _MAX_CHARACTERS:
            raise UsageError(f"a text has {len(text)} characters; at most {_MAX_CHARACTERS} are expected.")
        path = frame.folder / self.file
        try:
            changed = path.stat().st_mtime_ns
        except OSError as err:
            raise UsageError(
                f"step 'tokenize' cannot read {path}: {err.strerror or err}. Put the model's tokenizer file there."
            ) from err
        encoding = _tokenizer(path, changed, self.length).encode(text, add_special_tokens=self.special)
        numbers = {
            "tokens": encoding.ids,
            "mask": encoding.attention_mask,
            "segments": encoding.type_ids,
        }[self.give][: self.length]
        if max(numbers, default=0) > np.iinfo(self.dtype).max:
            raise IntegrityError(
                f"tokenizer file {path} gives {max(numbers)}, which {self.dtype} does not hold."
            )
        made = np.full(self.length, self.fill if self.give == "tokens" else 0, dtype=self.dtype)
        made[: len(numbers)] = numbers
        return made


@lru_cache(maxsize=8)
def _tokenizer(path: Path, changed: int, length: int) -> Tokenizer:
    """Return the tokenizer in the file at `path`, which cuts at `length`; `changed` makes a new file a new entry."""
    try:
        from tokenizers import Tokenizer
    except ImportError as err:
        raise UnavailableError(
            "step 'tokenize' needs the package tokenizers: pip install 'edgewright[text]'."
        ) from err
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise IntegrityError(f"tokenizer file {path} has more than {_MAX_FILE_BYTES} bytes.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=length)
    except Exception as err:  # the library raises Exception itself
        raise IntegrityError(
            f"tokenizer file {path} cannot be read: {str(err)[:200]}. A tokenizer.json is expected."
        ) from err
    return tokenizer
