"""The contracts of plug-ins: Session, Backend, Bridge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgewright.core.artifact import Artifact
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Support:
    """What a backend's probe found on this machine.

    Attributes:
        is_available: the runtime and its converter can be used.
        versions: package -> version.
        reason: why not, and the command that brings it; empty when available and installed.
        is_installed: False where the runtime itself is missing, and only what another machine needs can be made.
    """

    is_available: bool
    versions: dict[str, str]
    reason: str = ""
    is_installed: bool = True


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Time of one layer of one inference, as the runtime's own profiler tells it."""

    name: str
    operator: str
    time_us: float
    implementation: str = ""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Samples for activation ranges: float inputs as the source takes them.

    Attributes:
        path: an .npz file: input name -> [n, ...] with the sample axis first.
        count: n.
        sha256: digest of the names, shapes and bytes.
        description: where the samples come from, e.g. "512 seeded samples of train.npz".
    """

    path: Path
    count: int
    sha256: str
    description: str

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "path": str(self.path),
            "count": self.count,
            "sha256": self.sha256,
            "description": self.description,
        }

    @staticmethod
    def from_json(record: dict[str, object]) -> Calibration:
        """Return the calibration that `to_json` wrote."""
        return Calibration(
            path=Path(str(record["path"])),
            count=int(str(record["count"])),
            sha256=str(record["sha256"]),
            description=str(record["description"]),
        )


@runtime_checkable
class Session(Protocol):
    """A loaded model, inside a worker; it never crosses a process."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's inputs."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's outputs."""
        ...

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch; names and shapes as in the signature."""
        ...

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return the cost of each layer, or nothing where the runtime has no profiler."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@runtime_checkable
class Backend(Protocol):
    """One runtime: its converter and its interpreter. All methods but `probe` run in a worker."""

    name: str
    environment: str  # the toolchain environment that `convert` and `open` need; empty for Edgewright's own
    runtime_module: str  # imported before the memory baseline is taken, so that the library is not counted
    consumes: tuple[str, ...]
    precisions: tuple[Precision, ...]

    def probe(self) -> Support:
        """Say whether the runtime can be used here, without importing it (package metadata only)."""
        ...

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done (status `unavailable`), or None. Imports nothing."""
        ...

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair; PT2E means that `program` was quantized before `convert`."""
        ...

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write the artifact into `workdir`.

        Raises:
            ConversionError: the converter refused, with every unsupported operator by name.
        """
        ...

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Load the artifact into the runtime with the threads of `target`; `profile` enables `layers`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TracedLayer:
    """What one layer handed to the next one.

    Attributes:
        names: of the layer's operators in this runtime; the first is shown to people.
        operator: the runtime's name of the operator that begins the layer.
        is_weighted: it has weights.
        sources: positions of the layers whose outputs it reads; none where it reads the model's inputs alone.
        output: real values, after bias, activation and rounding; None when left out for its size or type.
    """

    names: tuple[str, ...]
    operator: str
    is_weighted: bool
    sources: tuple[int, ...]
    output: Array | None


@runtime_checkable
class Traceable(Protocol):
    """What a backend may have besides: it shows the values between the layers."""

    def trace(
        self, artifact: Artifact, target: Target, batches: Iterable[Arrays], *, max_bytes: int
    ) -> Iterator[Sequence[TracedLayer]]:
        """Yield for each batch the layers in the order of execution, the same ones every time.

        Args:
            max_bytes: of the outputs of one batch; layers with the largest outputs are left out.
        Raises:
            ConversionError: this model cannot be traced.
        """
        ...


@runtime_checkable
class Configurable(Protocol):
    """What a backend may have besides: options of its own, "name=value" in `Target.options`."""

    def settle_options(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return `texts` as options that are checked and complete: defaults written out, files with their digests.

        They decide what is made, so they are part of the target, of its evidence and of the key of its cached artifact.
        Given none, a backend uses its defaults. Imports nothing of a vendor.

        Raises:
            UsageError: an unknown name, with the nearest one, or a value that it cannot take.
        """
        ...


@runtime_checkable
class Bridge(Protocol):
    """A step from one program format to another, for backends that do not read the source's own."""

    name: str
    reads: tuple[str, ...]
    writes: str
    environment: str  # as of a Backend

    def probe(self) -> Support:
        """Say whether its packages are here, without importing them."""
        ...

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return the program in the other format, with the same inputs and outputs in the same order.

        Raises:
            ConversionError: it cannot be written, with every unsupported operator by name, or it was written and
                gives other numbers.
        """
        ...
