"""The output folder of a build: claimed before any work, filled with complete files only."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends.conversion import Conversion
from edgewright.core.artifact import Artifact
from edgewright.core.errors import DataError, UsageError
from edgewright.core.files import copy_files, write_aside, write_json, write_text
from edgewright.core.result import Result
from edgewright.processing.choice import rebind
from edgewright.processing.processor import Plan, Signature, plan
from edgewright.processing.specification import write_specification

if TYPE_CHECKING:
    from edgewright.core.tensors import Array

_MARKER = ".edgewright"
_MARKER_TEXT = "This folder was written by edgewright build; a later build may replace its files.\n"


def claim_output(out: Path) -> Path:
    """Make `out` or take over an earlier build's folder; return it as an absolute path.

    Raises:
        UsageError: `out` is a file, holds something else, or cannot be written.
    """
    out = Path.cwd() / out
    if out.exists() and not out.is_dir():
        raise UsageError(f"output folder {out} is a file. Choose another with --out.")
    if out.is_dir() and not (out / _MARKER).exists() and any(out.iterdir()):
        raise UsageError(
            f"output folder {out} holds files that no build wrote. Empty it, or choose another with --out."
        )
    write_text(out / _MARKER, _MARKER_TEXT)
    return out


def save_data(data: object, path: Path) -> str:
    """Return the data as a recipe names them: a path as it is, arrays saved to `path` as .npz."""
    import numpy as np

    if data is None or isinstance(data, str | Path):
        return str(data or "")
    arrays: dict[str, Array]
    if isinstance(data, Mapping):
        arrays = {str(name): np.asarray(value) for name, value in data.items()}
    elif isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(f"data is a tuple of {len(data)}; a pair (inputs, labels) is expected.")
        arrays = {"inputs": np.asarray(data[0]), "labels": np.asarray(data[1])}
    else:
        arrays = {"inputs": np.asarray(data)}
    bad = [name for name, array in arrays.items() if array.dtype == object]
    if bad:
        raise DataError(
            f"data {bad[0]!r} is not an array of numbers. Give numpy arrays with the sample axis first."
        )
    with write_aside(path) as aside, aside.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return str(path)


def install_artifacts(
    results: Sequence[Result],
    conversions: Mapping[str, Conversion],
    out: Path,
    processing: Plan | None = None,
) -> list[Result]:
    """Copy the artifacts to `out/artifacts/<artifact id>/`, drop those of earlier builds, name them in the results.

    Args:
        processing: of the source; each artifact gets it with the names of its own tensors, where it fits them.
    """
    wanted: set[str] = set()
    notes: dict[str, str] = {}
    for name, conversion in conversions.items():
        artifact = conversion.artifact
        if artifact is None:
            continue
        folder = out / "artifacts" / name
        files = dict(zip(artifact.names, artifact.files, strict=True))
        keep = {*files, "artifact.json"}
        for stale in list(folder.rglob("*")) if folder.is_dir() else []:
            if stale.is_file() and str(stale.relative_to(folder)) not in keep:
                stale.unlink()
        copy_files(files, folder)
        write_json(folder / "artifact.json", artifact.to_json() | {"files": list(files)})
        if processing is not None and (why := _install_processing(processing, artifact, folder)):
            notes[name] = f"it has no processing.toml: {why}"
        wanted.add(name)
    for folder in (out / "artifacts").iterdir() if (out / "artifacts").is_dir() else []:
        if folder.name not in wanted:
            shutil.rmtree(folder)
    installed = []
    for result in results:
        artifact = conversions[result.target.artifact_id].artifact
        path = None if artifact is None else f"artifacts/{result.target.artifact_id}/{artifact.names[0]}"
        note = notes.get(result.target.artifact_id)
        installed.append(replace(result, artifact=path, notes=(*result.notes, *([note] if note else []))))
    return installed


def _install_processing(processing: Plan, artifact: Artifact, folder: Path) -> str:
    """Write the processing with the artifact's own names; return why it does not fit, empty where it does."""
    signature = Signature(inputs=artifact.inputs, outputs=artifact.outputs)
    try:
        moved = rebind(processing.specification, processing.signatures[""], signature)
        write_specification(plan(moved, signature).specification, folder)
    except UsageError as err:
        # An artifact with integers at its ends takes other steps; then none is better than a wrong one.
        return str(err)
    return ""
