"""What a bundle is made of, and the contract of a platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgewright.core.artifact import Artifact
from edgewright.deploy.golden import Case
from edgewright.processing.processor import Plan


@dataclass(frozen=True, kw_only=True)
class Component:
    """A library that a bundle ships or asks its platform's tool for.

    Attributes:
        purl: its package URL, "pkg:maven/com.microsoft.onnxruntime/onnxruntime-android@1.31.1".
        licence: an SPDX expression.
        is_shipped: its files lie in the bundle; else the platform's tool brings them.
    """

    name: str
    version: str
    purl: str
    licence: str
    is_shipped: bool = False


@dataclass(frozen=True, kw_only=True)
class Size:
    """Bytes that an app grows by on one ABI; None where it was not measured, with the reason in `note`."""

    abi: str
    model_bytes: int
    runtime_bytes: int | None
    core_bytes: int | None
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "abi": self.abi,
            "model_bytes": self.model_bytes,
            "runtime_bytes": self.runtime_bytes,
            "core_bytes": self.core_bytes,
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """What a platform writes its project around.

    Attributes:
        name: checked, such as BirdFinder; names the types, the library, the folder.
        plan: the processing, checked against the models; sizes that these leave open are those of the golden cases.
        artifacts: name of the model -> artifact; "" for the only one. All of one runtime.
        cases: golden inputs with what must come out.
        options: NAME=VALUE texts for the platform, such as package=com.example.birds.
    """

    name: str
    version: str
    plan: Plan
    artifacts: Mapping[str, Artifact]
    cases: tuple[Case, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def runtime(self) -> str:
        """The runtime of the models."""
        return next(iter(self.artifacts.values())).target.runtime

    @property
    def model_bytes(self) -> int:
        """Bytes of all models."""
        return sum(artifact.size_bytes for artifact in self.artifacts.values())

    def model_files(self) -> dict[str, Path]:
        """Return the name that each model file has in a bundle -> where it lies now.

        A model of several is called by its own name, so that two `model.tflite` do not meet.
        """
        files: dict[str, Path] = {}
        for name, artifact in self.artifacts.items():
            for own, file in zip(artifact.names, artifact.files, strict=True):
                files[f"{name}/{own}" if name else own] = file
        return files


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a platform made of a content.

    Attributes:
        places: folders in the bundle of "model", "processing" (with its labels) and "golden".
        components: of which the bill of materials is made.
        proofs: what was built, run or type-checked here, in plain words: "compiled with gcc 12, golden test passed".
        notes: what the developer has to know.
    """

    places: Mapping[str, str]
    components: tuple[Component, ...] = ()
    sizes: tuple[Size, ...] = ()
    proofs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@runtime_checkable
class Platform(Protocol):
    """One kind of bundle."""

    name: str
    summary: str
    runtimes: tuple[str, ...]  # of the artifacts that it takes, the preferred first
    options: Mapping[str, str]  # name -> what it is, for help

    def write(self, content: Content, folder: Path) -> Written:
        """Write the project into the empty `folder`: README.md, sources, model, core, golden files, licences.

        Raises:
            UsageError: an option is unknown or out of range, or the content does not fit the platform.
            UnavailableError: a package that it has to ship cannot be had here.
        """
        ...

    def prove(self, content: Content, folder: Path) -> tuple[str, ...]:
        """Build and run what can be built and run here; return what was shown, in plain words.

        Raises:
            ConversionError: the bundle does not build, or its self-test fails.
        """
        ...

    def inspect(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """Return what of the platform's own was looked at in a written bundle -> what is wrong with it.

        For `bundle check`: pages of the libraries of Android, for one.
        """
        ...
