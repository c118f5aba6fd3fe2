"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright.core.errors import UsageError

Weights = Annotated[
    str,
    typer.Option(
        "--weights", metavar="FILE", help="Weights of a factory: .safetensors, or a plain state dict."
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="SHAPE",
        help="Input of a factory, or dynamic sizes of a file, e.g. 1x3x32x32 or name=1x3x32x32:int64; once per input.",
    ),
]
Processing = Annotated[
    str,
    typer.Option(
        "--processing",
        metavar="FILE|PRESET",
        help="Pre- and post-processing: a processing.toml, or the name of a preset.",
    ),
]
FoldProcessing = Annotated[
    bool,
    typer.Option("--fold-processing", help="Move what the graph can carry of the processing into the model."),
]
Signature = Annotated[
    str,
    typer.Option("--signature", metavar="NAME", help="Signature of a SavedModel; default: serving_default."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run code that the model carries (Lambda layers, PyFunc), in a worker only."
    ),
]
RuntimeOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="[RUNTIME.]NAME=VALUE",
        help="Option of one runtime, e.g. ethos-u55-128.memory_mode=Sram_Only; once per option.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of every choice that is random.")]


def split_names(text: str, option: str) -> tuple[str, ...]:
    """Return the names in the comma-separated `text` of `option`.

    Raises:
        UsageError: one of them is empty.
    """
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise UsageError(f"{option} is {text!r}; expected names separated by commas.")
    return names
