"""ONNX models as presets take them, and what runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgewright.core.tensors import Arrays, TensorSpec
from edgewright.processing.presets import Subject
from edgewright.processing.processor import Signature

_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def onnx_runner(paths: dict[str, Path]) -> tuple[dict[str, Subject], Callable[[str, Arrays], Arrays]]:
    """Return the models at `paths` (name -> file), and what runs one of them."""
    import onnxruntime

    sessions, subjects = {}, {}
    for name, path in paths.items():
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        ends = [
            tuple(
                TensorSpec(
                    name=end.name,
                    shape=tuple(size if isinstance(size, int) else None for size in end.shape),
                    dtype=_TYPES[end.type],
                )
                for end in rows
            )
            for rows in (session.get_inputs(), session.get_outputs())
        ]
        sessions[name] = session
        subjects[name] = Subject(path=path, signature=Signature(inputs=ends[0], outputs=ends[1]))

    def execute(model: str, inputs: Arrays) -> Arrays:
        names = [end.name for end in sessions[model].get_outputs()]
        return dict(zip(names, sessions[model].run(None, dict(inputs)), strict=True))

    return subjects, execute
