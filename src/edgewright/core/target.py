"""Target: where a model should run, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgewright.core.errors import UnknownNameError, UsageError
from edgewright.core.tensors import Layout

MAX_THREADS = 256


class Precision(StrEnum):
    """Numeric scheme of weights and activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    W8 = "w8"
    W8A8 = "w8a8"
    W4A8 = "w4a8"  # as w8a8, with weights of 15 values
    W4 = "w4"  # 4-bit weights: integer groups, or a palette of 16 values
    PRUNED = "pruned"  # half of the weights are zero, and only the others are stored

    @staticmethod
    def parse(text: str) -> Precision:
        """Return the precision called `text`.

        Raises:
            UnknownNameError: no precision has this name.
        """
        try:
            return Precision(text)
        except ValueError:
            raise UnknownNameError.of("precision", text, [p.value for p in Precision]) from None


# Activations are integers too, so their ranges come from samples.
INTEGER_PRECISIONS = (Precision.W8A8, Precision.W4A8)


class Quantizer(StrEnum):
    """Who computes the integer weights and ranges."""

    PT2E = "pt2e"
    NATIVE = "native"
    ACCURACY = "accuracy"  # the runtime's own, which leaves layers in float until the drop is small enough


@dataclass(frozen=True, kw_only=True)
class Target:
    """One column of the result: runtime, precision, threads and what the user fixed besides.

    Attributes:
        accelerator: ordered, never implied; only ("cpu",) for the runtimes of this version.
        layout: the layout of rank-4 inputs and outputs that the artifact shall have; None keeps the source's.
        quantizer: None lets the source format decide (pt2e for PyTorch, native else).
        options: of this runtime alone, "name=value", see `core.contracts.Configurable`.
    """

    runtime: str
    precision: Precision = Precision.FP32
    threads: int = 1
    accelerator: tuple[str, ...] = ("cpu",)
    layout: Layout | None = None
    quantizer: Quantizer | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(f"threads is {self.threads}; expected 1..{MAX_THREADS}.")

    @property
    def id(self) -> str:
        """A stable name, e.g. `litert-w8a8-2t`."""
        return f"{self.runtime}-{self.precision}-{self.threads}t"

    @property
    def artifact_id(self) -> str:
        """The name of the artifact, which does not depend on the threads, e.g. `litert-w8a8`."""
        return f"{self.runtime}-{self.precision}"

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        record: dict[str, object] = {
            "runtime": self.runtime,
            "precision": str(self.precision),
            "threads": self.threads,
            "accelerator": list(self.accelerator),
            "layout": self.layout,
            "quantizer": None if self.quantizer is None else str(self.quantizer),
        }
        return record | ({"options": list(self.options)} if self.options else {})

    @staticmethod
    def from_json(record: Mapping[str, object]) -> Target:
        """Return the target that `to_json` wrote."""
        accelerator = record["accelerator"]
        options = record.get("options", [])
        assert isinstance(accelerator, list)
        assert isinstance(options, list)
        layout, quantizer = record["layout"], record["quantizer"]
        return Target(
            runtime=str(record["runtime"]),
            precision=Precision.parse(str(record["precision"])),
            threads=int(str(record["threads"])),
            accelerator=tuple(str(name) for name in accelerator),
            layout=layout if layout in ("nchw", "nhwc") else None,
            quantizer=None if quantizer is None else Quantizer(str(quantizer)),
            options=tuple(str(option) for option in options),
        )
