"""What lies in a bundle: `manifest.json` with the digest of every file, and by it the models and the processing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from edgewright.core.artifact import PACKAGE_SUFFIX, Artifact
from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.files import sha256_of
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import TensorSpec

MANIFEST_NAME = "manifest.json"
DIGEST_NAME = "manifest.sha256"
SIGNATURE_NAME = "manifest.sig"
MANIFEST_VERSION = 1
VERSION_KEY = "edgewright_bundle"
OWN_NAMES = (MANIFEST_NAME, DIGEST_NAME, SIGNATURE_NAME)
_MAX_FILES = 20_000
_MAX_BYTES = 16 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PROCESSING_FILE = "processing.toml"
_GOLDEN_FILE = "golden.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        data: the bytes of the file, of which `manifest.sig` is the signature.
        record: what they say.
        files: path in the bundle, with forward slashes -> SHA-256 in hex.
    """

    data: bytes
    record: Mapping[str, object]
    files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleFiles:
    """Where a bundle holds what it is about.

    Attributes:
        processing, golden: folders.
        artifacts: name of the model -> artifact; "" for the only one.
    """

    processing: Path
    golden: Path
    artifacts: Mapping[str, Artifact]


def is_bundle(path: Path) -> bool:
    """Return whether `path` is a folder with a manifest; whether that is one of a bundle, `read_manifest` says."""
    # A package of Core ML has a Manifest.json, which is the same name to some file systems.
    return path.suffix != PACKAGE_SUFFIX and (path / MANIFEST_NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the bundle in `folder`, read strictly: no key twice, no path that leaves the folder.

    Raises:
        UsageError: there is none.
        IntegrityError: it is none that a bundle has.
    """
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise UsageError(
            f"{folder} holds no {MANIFEST_NAME}: it is no bundle. Give the folder that `bundle` wrote."
        )
    data = read_bounded(path, _MAX_BYTES)
    record = _parse(path, data)
    files = record.get("files")
    if record.get(VERSION_KEY) != MANIFEST_VERSION or not isinstance(files, dict) or not files:
        raise IntegrityError(
            f"{path} is no manifest of a bundle of version {MANIFEST_VERSION}. Make the bundle again."
        )
    if len(files) > _MAX_FILES:
        raise IntegrityError(f"{path} names {len(files)} files; at most {_MAX_FILES} are expected.")
    for name, digest in files.items():
        if not is_inside(name) or name in OWN_NAMES:
            raise IntegrityError(f"{path} names {name!r:.80}, which is no path of a file in the bundle.")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise IntegrityError(f"{path} has {digest!r:.80} for {name!r:.80}; a SHA-256 in hex is expected.")
    return Manifest(data=data, record=record, files=files)


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of the file at `path`.

    Raises:
        IntegrityError: it cannot be read, or has more than `most_bytes`.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(most_bytes + 1)
    except OSError as err:
        raise IntegrityError(f"{path} cannot be read: {err.strerror or err}.") from err
    if len(data) > most_bytes:
        raise IntegrityError(f"{path} has more than {most_bytes} bytes; it is none that a bundle has.")
    return data


def is_inside(name: str) -> bool:
    """Return whether `name` is a relative path with forward slashes, without detours, that stays in its folder."""
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name
        and name.isprintable()
        and "\\" not in name
    )


def find_files(folder: Path, manifest: Manifest) -> BundleFiles:
    """Return where the bundle in `folder` holds its models, processing and golden cases: files that it has digests of.

    Raises:
        IntegrityError: the manifest does not say so, or speaks of other files.
    """
    places = manifest.record.get("places")
    if not isinstance(places, dict) or not {"model", "processing", "golden"} <= set(places):
        raise IntegrityError(f"{folder} does not say where its model lies. Make the bundle again.")
    return BundleFiles(
        processing=_require(manifest, f"{places['processing']}/{_PROCESSING_FILE}", folder).parent,
        golden=_require(manifest, f"{places['golden']}/{_GOLDEN_FILE}", folder).parent,
        artifacts=_artifacts(folder, str(places["model"]), manifest),
    )


def open_bundle(folder: Path) -> BundleFiles:
    """Return where the bundle in `folder` holds what it is about; models and processing are those of its manifest.

    Raises:
        IntegrityError: the manifest is none, or one of these files is missing or has changed.
    """
    manifest = read_manifest(folder)
    found = find_files(folder, manifest)
    for name, digest in manifest.files.items():
        path = folder / name
        if path.is_relative_to(found.processing) and (not path.is_file() or sha256_of(path) != digest):
            raise IntegrityError(
                f"{path} is not the file that {MANIFEST_NAME} describes: it changed. Get it again."
            )
    for artifact in found.artifacts.values():
        artifact.verify_digest()
    return found


def _parse(path: Path, data: bytes) -> dict[str, object]:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a key stands there twice")
        return made

    def no_number(text: str) -> NoReturn:
        raise ValueError(f"{text} is no number")

    try:
        record = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError) as err:
        raise IntegrityError(f"{path} cannot be read as JSON: {err}. Make the bundle again.") from err
    if not isinstance(record, dict):
        raise IntegrityError(f"{path} holds {type(record).__name__}, but a JSON object is expected.")
    return record


def _artifacts(folder: Path, place: str, manifest: Manifest) -> dict[str, Artifact]:
    """Return the models that the manifest names, each of files that it has digests of."""
    models = manifest.record.get("models")
    if not isinstance(models, list) or not models:
        raise IntegrityError("the manifest names no model. Make the bundle again.")
    try:
        return {
            str(model["name"]): Artifact(
                files=tuple(_require(manifest, f"{place}/{file}", folder) for file in model["files"]),
                target=Target(
                    runtime=str(model["runtime"]), precision=Precision.parse(str(model["precision"]))
                ),
                inputs=tuple(TensorSpec.from_json(spec) for spec in model["inputs"]),
                outputs=tuple(TensorSpec.from_json(spec) for spec in model["outputs"]),
                sha256=str(model["sha256"]),
                source_sha256="",
            )
            for model in models
        }
    except (AttributeError, KeyError, TypeError, ValueError, AssertionError) as err:
        raise IntegrityError(
            f"the manifest's models are damaged: {err!r:.120}. Make the bundle again."
        ) from err


def _require(manifest: Manifest, name: str, folder: Path) -> Path:
    if name not in manifest.files:
        raise IntegrityError(f"the manifest goes by {name!r:.80}, of which it has no digest.")
    return folder / name
