"""Program: a model on disk before it is converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.core.tensors import TensorSpec

FORMATS = ("pt2", "onnx", "tflite", "torchscript", "keras", "saved_model", "graph_def")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A model file, its format and its signature; a file travels, never a live object.

    Attributes:
        path: the file, or the folder of a SavedModel. A factory or a live module has been exported to a `.pt2` file
            by `sources.load`.
        format: one of FORMATS.
        sha256: digest of the content: the file's own, or for an exported module that of its
            weights and graph (the bytes of a `.pt2` differ from one export to the next).
        history: what happened before, oldest first ("loaded from ...", "quantize(pt2e, w8a8)").
        notes: what the user should know ("batch made static: ...").
        origin: what the user named: a path or `package.module:factory`.
        origin_format: torch, or one of FORMATS, as in results.json.
        precision: fp32, or the precision that is already inside the file (w8a8 for a quantized `.tflite`).
        is_trusted: the user said that code inside the file may run; it runs in a worker, like everything else.
        signature: which of a SavedModel's signatures this is; empty for formats that have one.
    """

    path: Path
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sha256: str
    origin: str
    origin_format: str
    precision: str = "fp32"
    history: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_trusted: bool = False
    signature: str = ""

    def after(self, step: str, *, path: Path, sha256: str, precision: str) -> Program:
        """Return the program that a pass made of this one."""
        return replace(self, path=path, sha256=sha256, precision=precision, history=(*self.history, step))

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "path": str(self.path),
            "format": self.format,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "sha256": self.sha256,
            "origin": self.origin,
            "origin_format": self.origin_format,
            "precision": self.precision,
            "history": list(self.history),
            "notes": list(self.notes),
            "is_trusted": self.is_trusted,
            "signature": self.signature,
        }

    @staticmethod
    def from_json(record: Mapping[str, object]) -> Program:
        """Return the program that `to_json` wrote."""
        return Program(
            path=Path(str(record["path"])),
            format=str(record["format"]),
            inputs=specs_from_json(record["inputs"]),
            outputs=specs_from_json(record["outputs"]),
            sha256=str(record["sha256"]),
            origin=str(record["origin"]),
            origin_format=str(record["origin_format"]),
            precision=str(record["precision"]),
            history=_texts(record["history"]),
            notes=_texts(record["notes"]),
            is_trusted=record.get("is_trusted") is True,
            signature=str(record.get("signature", "")),
        )


def specs_from_json(records: object) -> tuple[TensorSpec, ...]:
    """Return the tensor specs of a JSON list."""
    assert isinstance(records, list)
    return tuple(TensorSpec.from_json(record) for record in records)


def _texts(values: object) -> tuple[str, ...]:
    assert isinstance(values, list)
    return tuple(str(value) for value in values)
