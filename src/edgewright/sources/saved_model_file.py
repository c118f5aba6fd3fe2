"""A SavedModel's folder read without TensorFlow: its files, and what `saved_model.pb` says.

Field numbers: tensorflow/core/protobuf/{saved_model,meta_graph,saver}.proto.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgewright.backends.coreml_wire import decoded, entry, fields, integer, message, text
from edgewright.core.errors import FormatMismatchError, IntegrityError, UsageError
from edgewright.core.files import MAX_MODEL_BYTES, sha256_of
from edgewright.sources.graph_def import Graph, Shape, dtype_name, parse_graph, parse_shape, read_proto

FILE_NAME = "saved_model.pb"
_MAX_FILES = 10_000
_MAX_DEPTH = 8
_INITIALISERS = ("saved_model_main_op", "legacy_init_op", "__saved_model_init_op")
INIT_SIGNATURE = "__saved_model_init_op"


@dataclass(frozen=True, kw_only=True)
class SignatureTensor:
    """One input or output of a signature; `reference` is the graph's tensor ("node:0")."""

    key: str
    reference: str
    dtype: str
    shape: Shape | None


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way to call the model; inputs and outputs are in the natural order of their keys."""

    key: str
    inputs: tuple[SignatureTensor, ...]
    outputs: tuple[SignatureTensor, ...]


@dataclass(frozen=True, kw_only=True)
class MetaGraph:
    """One graph of a SavedModel with its signatures.

    Attributes:
        version: of the TensorFlow that wrote it.
        savers: nodes that save and restore the variables; they run when the model is saved or loaded.
        initialisers: nodes that run when the model is loaded.
        is_object_based: written by TensorFlow 2.
        object_graph: what TensorFlow 2 finds functions by; empty without.
    """

    tags: tuple[str, ...]
    version: str
    graph: Graph
    signatures: Mapping[str, Signature]
    savers: frozenset[str]
    initialisers: tuple[str, ...]
    assets: tuple[str, ...]
    is_object_based: bool
    object_graph: bytes


def folder_files(folder: Path) -> dict[str, Path]:
    """Return relative name -> file of everything in a SavedModel's folder, sorted.

    Raises:
        UsageError: no `saved_model.pb`, or too much.
        IntegrityError: a link or a special file.
    """
    found: dict[str, Path] = {}
    total_bytes = 0
    stack = [(folder, 0)]
    while stack:
        place, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise UsageError(
                f"{folder} is deeper than {_MAX_DEPTH} folders; give the SavedModel's own folder."
            )
        with os.scandir(place) as entries:
            for item in entries:
                status = item.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    stack.append((Path(item.path), depth + 1))
                    continue
                if not stat.S_ISREG(status.st_mode):
                    raise IntegrityError(
                        f"{item.path} is no regular file. Links are not followed; copy the file there."
                    )
                total_bytes += status.st_size
                found[str(PurePosixPath(Path(item.path).relative_to(folder)))] = Path(item.path)
                if len(found) > _MAX_FILES or total_bytes > MAX_MODEL_BYTES:
                    raise UsageError(
                        f"{folder} has over {_MAX_FILES} files or {MAX_MODEL_BYTES} bytes; "
                        "give the SavedModel's own folder."
                    )
    if FILE_NAME not in found:
        raise UsageError(
            f"{folder} is a folder without {FILE_NAME}; a SavedModel or a model file is expected."
        )
    return dict(sorted(found.items()))


def sha256_of_folder(folder: Path) -> str:
    """Return the SHA-256 of the lines "<sha256>  <relative name>\\n", sorted by name."""
    lines = "".join(f"{sha256_of(file)}  {name}\n" for name, file in folder_files(folder).items())
    return hashlib.sha256(lines.encode()).hexdigest()


def read_meta_graph(folder: Path) -> MetaGraph:
    """Return the graph for inference ("serve") of the SavedModel in `folder`.

    Raises:
        UsageError: several graphs and none for inference.
        FormatMismatchError, IntegrityError: `saved_model.pb` is not one, or is damaged.
    """
    path = folder / FILE_NAME
    try:
        graphs = [_meta_graph(message(value)) for number, value in fields(read_proto(path)) if number == 2]
    except IntegrityError as err:
        raise IntegrityError(f"{path} is not whole: {err} Export the model again.") from err
    if not graphs or not any(graph.graph.nodes for graph in graphs):
        raise FormatMismatchError(f"{path} holds no graph; it is no SavedModel. Export the model again.")
    serving = [graph for graph in graphs if "serve" in graph.tags]
    if len(serving) != 1 and len(graphs) != 1:
        tags = "; ".join(", ".join(graph.tags) or "none" for graph in graphs)
        raise UsageError(
            f"{path} holds {len(graphs)} graphs with the tags {tags}; exactly one 'serve' is expected."
        )
    found = serving[0] if len(serving) == 1 else graphs[0]
    for name in found.assets:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise IntegrityError(f"{path}: its asset {name!r} is outside the model's folder; it is not read.")
    return found


def _meta_graph(data: memoryview) -> MetaGraph:
    tags: list[str] = []
    version = ""
    graph = Graph(nodes=(), functions={})
    signatures: dict[str, Signature] = {}
    savers: set[str] = set()
    initialisers: list[str] = []
    assets: list[str] = []
    object_graph = b""
    for number, value in fields(data):
        body = message(value)
        if number == 1:
            for place, item in fields(body):
                if place == 4:
                    tags.append(text(item))
                elif place == 5:
                    version = text(item)
        elif number == 2:
            graph = parse_graph(body)
        elif number == 3:
            savers |= {node_of(text(item)) for place, item in fields(body) if place in (1, 2, 3)}
        elif number == 4:
            key, content = entry(body)
            if key in _INITIALISERS:
                initialisers += [node_of(name) for name in _node_list(content)]
        elif number == 5:
            key, content = entry(body)
            signatures[key] = _signature(key, content)
        elif number == 6:
            assets += [text(item) for place, item in fields(body) if place == 2]
        elif number == 7:
            object_graph += bytes(body)
    started = signatures.pop(INIT_SIGNATURE, None)
    if started is not None:
        initialisers += [node_of(tensor.reference) for tensor in started.outputs]
    return MetaGraph(
        tags=tuple(tags),
        version=version,
        graph=graph,
        signatures=dict(sorted(signatures.items())),
        savers=frozenset(savers),
        initialisers=tuple(initialisers),
        assets=tuple(assets),
        is_object_based=bool(object_graph),
        object_graph=object_graph,
    )


def node_of(reference: str) -> str:
    """Return the node's name in "node", "node:0", "node:output:0" or "^node"."""
    return reference.removeprefix("^").partition(":")[0]


def _node_list(data: memoryview) -> list[str]:
    return [
        text(item)
        for number, value in fields(data)
        if number == 1
        for place, item in fields(message(value))
        if place == 1
    ]


def _signature(key: str, data: memoryview) -> Signature:
    tensors: dict[int, list[SignatureTensor]] = {1: [], 2: []}
    for number, value in fields(data):
        if number in tensors:
            name, body = entry(message(value))
            tensors[number].append(_tensor(name, body))
    return Signature(
        key=key,
        inputs=tuple(sorted(tensors[1], key=lambda tensor: natural(tensor.key))),
        outputs=tuple(sorted(tensors[2], key=lambda tensor: natural(tensor.key))),
    )


def natural(key: str) -> tuple[tuple[bool, int, str], ...]:
    """Return what sorts "output_2" before "output_10"."""
    parts: list[str] = []
    for letter in key:
        if parts and parts[-1][-1].isdecimal() == letter.isdecimal():
            parts[-1] += letter
        else:
            parts.append(letter)
    return tuple(
        (False, int(part[:18]), part) if part.isdecimal() and part.isascii() else (True, 0, part)
        for part in parts
    )


def _tensor(key: str, data: memoryview) -> SignatureTensor:
    reference, dtype = "", ""
    shape: Shape | None = None
    for number, value in fields(data):
        if number == 1:
            reference = decoded(message(value))
        elif number == 2:
            dtype = dtype_name(integer(value))
        elif number == 3:
            shape = parse_shape(message(value))
        elif number in (4, 5):
            dtype = "a sparse or composite tensor"
    return SignatureTensor(key=key, reference=reference, dtype=dtype, shape=shape)
