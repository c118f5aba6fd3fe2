"""TensorFlow sources: the signature of a SavedModel or of a frozen graph, without TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec
from edgewright.sources.graph_def import Graph, GraphNode, Shape, read_graph_def, require_readable
from edgewright.sources.graph_safety import require_safe
from edgewright.sources.saved_model_file import (
    MetaGraph,
    Signature,
    SignatureTensor,
    node_of,
    read_meta_graph,
    sha256_of_folder,
)
from edgewright.sources.shapes import InputShape, parse_input_shapes

_DEFAULT = "serving_default"
_LISTED = 12
# What nobody reads, but is no output of a frozen graph either.
_NO_OUTPUT = frozenset(
    {"NoOp", "Assert", "Const", "Placeholder", "PlaceholderWithDefault", "SaveV2", "RestoreV2"}
)
_V1_LOOPS = ("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond")
_CONTROL = ("If", "StatelessIf", "While", "StatelessWhile", "Case", *_V1_LOOPS)


def read_saved_model(
    folder: Path,
    *,
    spec: str,
    signature: str | None = None,
    input_shapes: Sequence[str] = (),
    is_trusted: bool = False,
) -> Program:
    """Return the Program of a SavedModel's folder.

    Inputs and outputs are named by the signature's keys and stand in their natural order ("output_2" before
    "output_10"), which is the order in which TensorFlow flattens them.

    Args:
        signature: its key; None takes `serving_default`, or the only one.
        input_shapes: sizes for dynamic dimensions, see `sources.shapes`.
    Raises:
        UsageError: no such signature, or several and none is meant; an unknown rank; operators that run code or touch
            files, untrusted.
        FormatMismatchError: strings or other types that no runtime here takes.
        IntegrityError: the folder or `saved_model.pb` is damaged.
    """
    meta = read_meta_graph(folder)
    chosen = choose_signature(meta, folder, signature)
    run = [node_of(tensor.reference) for key in meta.signatures.values() for tensor in key.outputs]
    notes = require_safe(
        folder,
        meta.graph,
        meta.savers,
        is_trusted=is_trusted,
        used=[*run, *meta.initialisers],
        objects=meta.object_graph,
    )
    inputs = with_shapes(_specs(chosen.inputs, folder, input_shapes), input_shapes, folder)
    if len(meta.signatures) > 1:
        notes = (*notes, f"signature {chosen.key!r} of {', '.join(meta.signatures)}")
    program = Program(
        path=folder,
        format="saved_model",
        inputs=inputs,
        outputs=_specs(chosen.outputs, folder),
        sha256=saved_model_sha256(folder, chosen.key),
        origin=spec,
        origin_format="saved_model",
        history=(f"loaded from {folder.name}",),
        notes=(*notes, *_graph_notes(meta.graph), *dynamic_notes(inputs)),
        is_trusted=is_trusted,
        signature=chosen.key,
    )
    return _checked(program)


def saved_model_sha256(folder: Path, signature: str) -> str:
    """Return the digest of the folder's files; another signature than the default is another model."""
    digest = sha256_of_folder(folder)
    return digest if signature == _DEFAULT else sha256(f"{digest}  {signature}\n".encode()).hexdigest()


def choose_signature(meta: MetaGraph, folder: Path, wanted: str | None) -> Signature:
    """Return the signature `wanted`, else `serving_default`, else the only one.

    Raises:
        UsageError: none of these; the message names all that there are.
    """
    known = ", ".join(meta.signatures) or "none"
    if wanted:
        if wanted not in meta.signatures:
            raise UsageError(f"{folder} has no signature {wanted!r}; it has: {known}. Give one of these.")
        chosen = meta.signatures[wanted]
    elif _DEFAULT in meta.signatures:
        chosen = meta.signatures[_DEFAULT]
    elif len(meta.signatures) == 1:
        chosen = next(iter(meta.signatures.values()))
    elif not meta.signatures:
        raise UsageError(
            f"{folder} has no signature, so that its inputs and outputs are not known. Save it with "
            "tf.saved_model.save(..., signatures=...), or with model.export(...)."
        )
    else:
        raise UsageError(
            f"{folder} has {len(meta.signatures)} signatures: {known}. Say which with --signature."
        )
    if not chosen.inputs or not chosen.outputs:
        raise UsageError(
            f"{folder}: signature {chosen.key!r} has {len(chosen.inputs)} inputs and {len(chosen.outputs)} outputs; "
            "at least one of each is expected."
        )
    return chosen


def read_frozen_graph(
    path: Path, *, spec: str, input_shapes: Sequence[str] = (), is_trusted: bool = False
) -> Program:
    """Return the Program of a frozen GraphDef: its placeholders, and the nodes that nobody reads.

    The shapes of its outputs are seldom in the file; they have unknown dimensions then, of which even the rank may be
    wrong: `load` completes them with TensorFlow.

    Raises:
        UsageError, FormatMismatchError, IntegrityError: as of `read_saved_model`; or variables that are not frozen.
    """
    graph = read_graph_def(path)
    notes = require_safe(path, graph, (), is_trusted=is_trusted)
    variables = [
        node.name for node in graph.nodes if node.operator in ("VariableV2", "Variable", "VarHandleOp")
    ]
    if variables:
        raise UsageError(
            f"{path} has {len(variables)} variables ({variables[0]!r} is one) whose values are not in it. Freeze the "
            "graph, or give the SavedModel."
        )
    fed = [node for node in graph.nodes if node.operator == "Placeholder"]
    given = graph_outputs(graph)
    if not fed or not given:
        raise UsageError(
            f"{path} has {len(fed)} placeholders and {len(given)} outputs; at least one is expected."
        )
    tensors = [
        SignatureTensor(key=n.name, reference=f"{n.name}:0", dtype=n.dtype, shape=n.shape) for n in fed
    ]
    inputs = with_shapes(_specs(tensors, path, input_shapes), input_shapes, path)
    program = Program(
        path=path,
        format="graph_def",
        inputs=inputs,
        outputs=tuple(_output_spec(node) for node in given),
        sha256=sha256_of(path),
        origin=spec,
        origin_format="graph_def",
        history=(f"loaded from {path.name}",),
        notes=(*notes, *_graph_notes(graph), *dynamic_notes(inputs)),
        is_trusted=is_trusted,
    )
    return _checked(program)


def graph_outputs(graph: Graph) -> list[GraphNode]:
    """Return the nodes of the main graph whose output nobody reads, in the file's order."""
    read = {node_of(reference) for node in graph.nodes for reference in node.inputs}
    return [node for node in graph.nodes if node.name not in read and node.operator not in _NO_OUTPUT]


def _output_spec(node: GraphNode) -> TensorSpec:
    shape = node.output_shapes[0] if node.output_shapes else None
    dtype = node.dtype if node.dtype in ("float16", "float64", "int32", "int64", "bool") else "float32"
    return _spec(node.name, shape or (), dtype)


def _specs(
    tensors: Sequence[SignatureTensor], path: Path, input_shapes: Sequence[str] = ()
) -> tuple[TensorSpec, ...]:
    given = _given(tuple(tensor.key for tensor in tensors), input_shapes, path)
    return tuple(
        _spec(
            tensor.key,
            require_readable(
                tensor.key,
                tensor.dtype,
                given[tensor.key].shape if tensor.shape is None and tensor.key in given else tensor.shape,
                path,
            ),
            tensor.dtype,
        )
        for tensor in tensors
    )


def _spec(name: str, shape: Shape, dtype: str) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, layout="nhwc" if len(shape) == 4 else None)


def _given(names: tuple[str, ...], input_shapes: Sequence[str], path: Path) -> dict[str, InputShape]:
    """Return input name -> the shape that the user gave for it, by name or by position."""
    shapes = parse_input_shapes(input_shapes)
    unknown = [shape.name for shape in shapes if shape.name and shape.name not in names]
    if unknown or len(shapes) > len(names):
        raise UsageError(
            f"{path} has the inputs {', '.join(names)}, but shapes were given for "
            f"{', '.join(map(str, unknown)) or len(shapes)}. Give one shape for each input."
        )
    return {shape.name or names[place]: shape for place, shape in enumerate(shapes)}


def with_shapes(
    specs: tuple[TensorSpec, ...], input_shapes: Sequence[str], path: Path
) -> tuple[TensorSpec, ...]:
    """Return the inputs with the dynamic dimensions that `input_shapes` gives sizes for.

    Raises:
        UsageError: a shape does not fit the file's own.
    """
    given = _given(tuple(spec.name for spec in specs), input_shapes, path)
    fixed = []
    for spec in specs:
        shape = given[spec.name].shape if spec.name in given else None
        if shape is not None and (
            len(shape) != len(spec.shape)
            or any(own not in (None, size) for own, size in zip(spec.shape, shape, strict=True))
        ):
            raise UsageError(
                f"--input-shape gives {spec.name!r} the shape {list(shape)}, but {path} says {spec}. "
                "Only its dynamic dimensions (?) can be given a size."
            )
        fixed.append(spec if shape is None else replace(spec, shape=shape))
    return tuple(fixed)


def dynamic_notes(specs: Sequence[TensorSpec]) -> list[str]:
    """Return one note for each input that is dynamic in more than its batch."""
    notes = []
    for spec in specs:
        free = [str(axis) for axis, size in enumerate(spec.shape) if size is None and axis > 0]
        if free:
            dims = f"dimension{'s' if len(free) > 1 else ''} {', '.join(free)}"
            notes.append(f"input {spec.name!r} is dynamic in {dims}; give it a size with --input-shape")
    return notes


def _graph_notes(graph: Graph) -> tuple[str, ...]:
    counts = Counter(node.operator for node in graph.all_nodes if node.operator in _CONTROL)
    if not counts:
        return ()
    return (f"control flow: {', '.join(f'{count} {name}' for name, count in counts.most_common(_LISTED))}",)


def _checked(program: Program) -> Program:
    """Return `program` when its names are unique and its inputs are not its outputs."""
    for kind, specs in (("inputs", program.inputs), ("outputs", program.outputs)):
        names = Counter(spec.name for spec in specs)
        if len(names) != len(specs):
            raise IntegrityError(f"{program.path} has several {kind} with one name. Export it again.")
    return program
