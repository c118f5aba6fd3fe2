"""Artifact: what a backend wrote, with everything needed to run and to trace it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from edgewright.core.errors import IntegrityError
from edgewright.core.files import sha256_of_files
from edgewright.core.program import specs_from_json
from edgewright.core.target import Target
from edgewright.core.tensors import TensorSpec

PACKAGE_SUFFIX = ".mlpackage"


class Proof(StrEnum):
    """What can be shown of an artifact on this machine."""

    RUN = "run"  # its own runtime runs it
    INTERPRETED = "interpreted"  # an interpreter of ours runs the written file, for the runtime is not here
    CONVERTED = "converted"  # complete, but nothing here runs it
    RECIPE = "recipe"  # what another machine needs to build it, with the command


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A converted model.

    Attributes:
        files: every file of the artifact; the first is the one to open (`model.xml`, then `model.bin`). All are in
            its folder or below it, no two of one name; or below one folder that ends in `.mlpackage`.
        inputs, outputs: as the runtime sees them, in the order of the source program's.
        sha256: see `core.files.sha256_of_files`.
        source_sha256: the digest of the Program that the user gave.
        toolchain: package -> version of everything that had a part in it.
        notes: what the user should know ("batch made static: 1").
        proof: what can be shown of it here; with RUN and INTERPRETED alone it is ever opened.
        environment: the toolchain environment that it runs in; empty for Edgewright's own.
    """

    files: tuple[Path, ...]
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sha256: str
    source_sha256: str
    toolchain: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    proof: Proof = Proof.RUN
    environment: str = ""

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0]

    @property
    def shown_path(self) -> Path:
        """What a user names: the `.mlpackage` where there is one, else the file to open."""
        packages = [parent for parent in self.path.parents if parent.suffix == PACKAGE_SUFFIX]
        return packages[-1] if packages else self.path

    @property
    def names(self) -> tuple[str, ...]:
        """The files as paths relative to the artifact's folder, with forward slashes."""
        folder = self.shown_path.parent
        return tuple(str(PurePosixPath(file.relative_to(folder))) for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, all files together."""
        return sum(file.stat().st_size for file in self.files)

    def verify_digest(self) -> None:
        """Check that the files are still those that were written.

        Raises:
            IntegrityError: a file is missing or has changed.
        """
        missing = [str(file) for file in self.files if not file.is_file()]
        if missing:
            raise IntegrityError(f"artifact file {missing[0]} is missing. Build it again.")
        got = sha256_of_files(self.files)
        if got != self.sha256:
            raise IntegrityError(
                f"artifact {self.path} has digest {got[:16]}..., but {self.sha256[:16]}... was recorded: "
                "it changed after it was written. Build it again."
            )

    def moved(self, files: tuple[Path, ...]) -> Artifact:
        """Return the same artifact at other paths."""
        return replace(self, files=files)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "files": [str(file) for file in self.files],
            "target": self.target.to_json(),
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "sha256": self.sha256,
            "source_sha256": self.source_sha256,
            "toolchain": dict(self.toolchain),
            "notes": list(self.notes),
            "proof": str(self.proof),
            "environment": self.environment,
        }

    @staticmethod
    def from_json(record: Mapping[str, object]) -> Artifact:
        """Return the artifact that `to_json` wrote."""
        files, target = record["files"], record["target"]
        toolchain, notes = record["toolchain"], record["notes"]
        assert isinstance(files, list)
        assert isinstance(target, dict)
        assert isinstance(toolchain, dict)
        assert isinstance(notes, list)
        return Artifact(
            files=tuple(Path(str(file)) for file in files),
            target=Target.from_json(target),
            inputs=specs_from_json(record["inputs"]),
            outputs=specs_from_json(record["outputs"]),
            sha256=str(record["sha256"]),
            source_sha256=str(record["source_sha256"]),
            toolchain={str(name): str(version) for name, version in toolchain.items()},
            notes=tuple(str(note) for note in notes),
            proof=Proof(str(record.get("proof", Proof.RUN))),
            environment=str(record.get("environment", "")),
        )
