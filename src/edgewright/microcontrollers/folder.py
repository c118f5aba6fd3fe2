"""The folder of a C model, read again: code is built and run only where it is what the emitter makes of the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.microcontrollers import selftest
from edgewright.microcontrollers.emit import CModel, compile_model, seed_of
from edgewright.microcontrollers.labels import read_labels

MODEL_SUFFIX = ".tflite"
_MAX_TEST_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class CFolder:
    """A C model with its self-test.

    Attributes:
        source: NAME.c; NAME.h, NAME_test.c and the LiteRT model are beside it.
        author: who computed the outputs that the self-test expects.
    """

    source: Path
    model: CModel
    author: str

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.source.parent

    @property
    def name(self) -> str:
        """The prefix of the model's names."""
        return self.model.name


def labels_file(folder: Path, name: str) -> Path:
    """Return where the labels that the user gave are kept."""
    return folder / f"{name}_labels.txt"


def read_model(source: Path) -> CModel:
    """Return the model that NAME.c at `source` was made of, and check that it and NAME.h still are that model.

    Raises:
        UsageError: a file is missing.
        IntegrityError: they are not what this version makes of the LiteRT model beside them.
    """
    _require(source, source.with_suffix(MODEL_SUFFIX), source.with_suffix(".h"))
    stored, labels = source.with_suffix(MODEL_SUFFIX), labels_file(source.parent, source.stem)
    model = compile_model(
        stored,
        name=source.stem,
        has_integer_ends=True,
        labels=read_labels(labels) if labels.is_file() else (),
    )
    for file, text in ((source, model.source), (source.with_suffix(".h"), model.header)):
        made = text.encode()
        # The size first: what is no such file may be of any size.
        if file.stat().st_size != len(made) or file.read_bytes() != made:
            raise IntegrityError(
                f"{file} is not what this version of Edgewright makes of {stored.name}. Build it again."
            )
    return model


def read_folders(path: Path) -> list[CFolder]:
    """Return the C models at `path`: NAME.c, its folder, or the folder of a build with some in it.

    Raises:
        UsageError: there is none.
        IntegrityError: a file is not what this version makes of the model.
    """
    return [read_folder(source) for source in _sources(path)]


def read_folder(source: Path) -> CFolder:
    """Return the C model of NAME.c at `source`.

    Raises:
        UsageError: a file is missing.
        IntegrityError: a file is not what this version makes of the model.
    """
    test = source.with_name(f"{source.stem}_test.c")
    _require(source, source.with_suffix(MODEL_SUFFIX), source.with_suffix(".h"), test)
    model = read_model(source)
    try:
        if test.stat().st_size > _MAX_TEST_BYTES:
            raise ValueError(f"it has more than {_MAX_TEST_BYTES} bytes")
        text = test.read_text(encoding="utf-8", errors="replace")
        author = selftest.author_of(text, model.graph, model.name, model.plan, seed=seed_of(model))
    except ValueError as err:
        raise IntegrityError(
            f"{test} is not the self-test that this version of Edgewright makes: {err}. Build it again."
        ) from err
    return CFolder(source=source, model=model, author=author)


def _sources(path: Path) -> list[Path]:
    if path.is_file() and path.suffix == ".c":
        return [path]
    folders = [path, *sorted((path / "artifacts").glob("*"))] if path.is_dir() else []
    found = [
        file
        for folder in folders
        for file in sorted(folder.glob("*.c"))
        if file.with_name(f"{file.stem}_test.c").is_file()
    ]
    if not found:
        raise UsageError(
            f"{path} holds no C model: expected is NAME.c, its folder, or the folder of a build with --to c."
        )
    return found


def _require(source: Path, *files: Path) -> None:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UsageError(
            f"{source} is not a C model of Edgewright's: {', '.join(missing)} not beside it. "
            "Make one: edgewright convert MODEL --to c --precision w8a8 --out DIR"
        )
