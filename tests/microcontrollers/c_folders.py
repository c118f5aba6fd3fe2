"""Folders of C models for tests, as the backend writes them."""

from __future__ import annotations

from pathlib import Path

from tests.microcontrollers.c_models import open_model

from edgewright.microcontrollers.emit import compile_model, golden_inputs, write_checks
from edgewright.microcontrollers.folder import MODEL_SUFFIX, labels_file
from edgewright.microcontrollers.projects import write_projects


def write_folder(model_file: Path, folder: Path, *, name: str, labels: tuple[str, ...] = ()) -> Path:
    """Write the C model of `model_file` with its self-test and projects into `folder`; return NAME.c."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / f"{name}{MODEL_SUFFIX}"
    stored.write_bytes(model_file.read_bytes())
    model = compile_model(stored, name=name, has_integer_ends=True, labels=labels)
    made = open_model(model, folder)
    (folder / f"{name}.so").unlink()
    write_checks(model, folder, [made.run(row) for row in golden_inputs(model)], source="this machine")
    write_projects(model, folder)
    if labels:
        labels_file(folder, name).write_text("\n".join(labels), encoding="utf-8")
    return folder / f"{name}.c"
