"""What a compression pass is: a program in, a smaller program out, and what it may use on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgewright.core.program import Program

if TYPE_CHECKING:
    import torch

    # Trains a module in place for a number of epochs: the user's own loop, or `training.Trainer`.
    Train = Callable[[torch.nn.Module, int], None]
    Batch = tuple[torch.Tensor, ...]


class Fit(Protocol):
    """Trains a module in place, and remembers it: see `checkpoints.ResumableFit`."""

    def __call__(self, stage: str, module: torch.nn.Module, epochs: int, /) -> None:
        """Train `module` for `epochs`, or load what an earlier run left behind under the name `stage`.

        The same stage of the same step gets the same module structure every time.

        Raises:
            TrainingError: there is no training function, it failed, or it left NaN or infinity in the weights.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a pass works with.

    Attributes:
        folder: the step's own, kept until the step is complete; checkpoints in it survive a kill.
        calibration: batches of real inputs, each one tensor per input of the model, batch axis first; from the
            training data, never from the evaluation set. The first is also the example of one call.
        labels: class numbers int64 [n] of each calibration batch, or None where the data have none.
        fit: trains; raises TrainingError where the recipe names no training data and no training function.
        teacher: the program to learn from, as `.pt2`; None where the recipe names none.
        original: the uncompressed source, as `.pt2`.
        report: called with one line of text, and the share of the step that is done (0..1) where it is known.
        seed: of everything random.
    """

    folder: Path
    calibration: Sequence[Batch]
    labels: Sequence[torch.Tensor] | None
    fit: Fit
    teacher: Program | None
    original: Program
    report: Callable[[str, float | None], None]
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """What a pass made.

    Attributes:
        program: the `.pt2` in the step's folder.
        facts: what the report shows of the step, in order: name -> text or number ("macs" -> 1234, "sparsity" -> 0.9).
        tables: what it shows besides: title -> rows, each a mapping of column -> text or number.
        notes: sentences that the user should read ("litert does not skip zeros: no faster").
    """

    program: Program
    facts: dict[str, float | int | str]
    tables: dict[str, list[dict[str, float | int | str]]]
    notes: tuple[str, ...] = ()


OptionsT = TypeVar("OptionsT")


class Pass(Protocol[OptionsT]):
    """One technique, as a recipe names it; the modules that have one list it in `registry.PASSES`."""

    name: str
    summary: str
    precisions: tuple[str, ...]
    Options: type[OptionsT]

    def run(self, program: Program, options: OptionsT, bench: Bench) -> Compressed:
        """Compress `program`, a `.pt2` in one of `precisions`.

        Raises:
            UsageError: an option is out of range, or names a layer that is not there.
            ConversionError: this model cannot be compressed so, with the tensor and layer that stand in the way.
            TrainingError: training failed; the last good checkpoint stays in the folder.
        """
        ...
