"""From a `.tflite` to C: read, refuse what is not covered, plan the memory, write the files, prove them on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array
from edgewright.microcontrollers import selftest, writer
from edgewright.microcontrollers.ends import with_integer_ends
from edgewright.microcontrollers.graph import ITEM_BYTES, Graph, Tensor
from edgewright.microcontrollers.labels import check_labels, embedded_labels
from edgewright.microcontrollers.layer import Layer, Site, UnsupportedError, require
from edgewright.microcontrollers.names import check_name, numbered
from edgewright.microcontrollers.planner import ALIGNMENT, Plan
from edgewright.microcontrollers.reader import read_graph
from edgewright.microcontrollers.registry import KERNELS
from edgewright.microcontrollers.streaming import plan_streamed

MAX_OPERATORS = 2000
# That an error tells.
_MOST_REASONS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class CModel:
    """A model as C, before it is written.

    Attributes:
        table_bytes: of constants in flash.
        weight_bytes: of constants in the model's file, for comparison.
        stack_bytes: of local arrays, the largest of any kernel.
    """

    name: str
    graph: Graph
    layers: tuple[Layer, ...]
    plan: Plan
    header: str
    source: str
    table_bytes: int
    weight_bytes: int
    stack_bytes: int
    macs: int

    @property
    def is_exact(self) -> bool:
        """True when the outputs are the interpreter's bit by bit: all but float32 softmax, logistic and tanh are."""
        return all(layer.is_exact for layer in self.layers)


def compile_model(
    path: Path, *, name: str, has_integer_ends: bool = False, labels: tuple[str, ...] = ()
) -> CModel:
    """Return the `.tflite` at `path` as C; nothing is written.

    Args:
        name: prefix of every name in the C files; an identifier.
        has_integer_ends: float inputs and outputs that are quantized inside become integers, see `ends`.
        labels: of the classes that an output tells apart; default: those in the file itself, if any.
    Raises:
        UsageError: `name` is no identifier of C, or the labels fit no output.
        FormatMismatchError, IntegrityError: see `read_graph`.
        ConversionError: operators are not covered; the message names all of them, each with its reason.
    """
    check_name(name)
    graph = read_graph(path)
    if has_integer_ends:
        graph = with_integer_ends(graph)
    if labels:
        check_labels(labels, graph)
    graph = replace(graph, labels=labels or embedded_labels(path, graph))
    if len(graph.operators) > MAX_OPERATORS:
        raise ConversionError(
            f"{path.name} has {len(graph.operators)} operators; at most {MAX_OPERATORS} are made into C."
        )
    layers = _layers(graph, name, path)
    plan = plan_streamed(graph, layers)
    return CModel(
        name=name,
        graph=graph,
        layers=layers,
        plan=plan,
        header=writer.header_text(graph, name, layers, plan),
        source=writer.source_text(graph, name, layers, plan),
        table_bytes=sum(constant.size_bytes for constant in writer.constants_of(graph, name, layers, plan)),
        weight_bytes=graph.weight_bytes,
        stack_bytes=writer.stack_bytes(layers, plan),
        macs=sum(layer.macs for layer in layers),
    )


def write_sources(model: CModel, folder: Path) -> tuple[Path, Path]:
    """Write NAME.c and NAME.h into `folder`, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    source, header = folder / f"{model.name}.c", folder / f"{model.name}.h"
    source.write_text(model.source, encoding="utf-8")
    header.write_text(model.header, encoding="utf-8")
    return source, header


def golden_inputs(model: CModel) -> list[list[Array]]:
    """Return the inputs of the self-test, one row a run."""
    return selftest.golden_inputs(model.graph, selftest.RUNS, seed_of(model))


def write_checks(
    model: CModel, folder: Path, outputs: Sequence[Sequence[Array]], *, source: str
) -> tuple[Path, Path, Path]:
    """Write NAME_test.c and the Makefile beside the sources; return header, test and Makefile.

    Args:
        outputs: expected for `golden_inputs`.
        source: who computed them, for the comment in the self-test.
    """
    test, makefile = folder / f"{model.name}_test.c", folder / "Makefile"
    text = selftest.test_text(
        model.graph, model.name, model.plan, outputs, seed=seed_of(model), source=source
    )
    test.write_text(text, encoding="utf-8")
    makefile.write_text(selftest.makefile_text(model.name), encoding="utf-8")
    return folder / f"{model.name}.h", test, makefile


def seed_of(model: CModel) -> int:
    """Return the seed of the self-test's inputs."""
    return int(model.graph.sha256[:8], 16)


def _is_made(tensor: Tensor) -> bool:
    """Return whether kernels may touch the tensor: the arena is aligned for values of four bytes at most."""
    return ITEM_BYTES.get(tensor.dtype, 8) <= ALIGNMENT or tensor.value is not None or tensor.count == 0


def _layers(graph: Graph, name: str, path: Path) -> tuple[Layer, ...]:
    layers = []
    refused: dict[tuple[str, str], list[int]] = {}
    for operator in graph.operators:
        try:
            layers.append(_layer(Site(graph=graph, operator=operator, prefix=name)))
        except UnsupportedError as err:
            refused.setdefault((operator.name, str(err)), []).append(operator.position)
    if refused:
        shown = [
            f"{numbered(kind, places)}: {reason}"
            for (kind, reason), places in list(refused.items())[:_MOST_REASONS]
        ]
        if len(refused) > _MOST_REASONS:
            shown.append(f"And {len(refused) - _MOST_REASONS} more reasons")
        raise ConversionError(
            f"{path.name} cannot become C. {'. '.join(shown)}. Change these operators, or use --to litert."
        )
    return tuple(layers)


def _layer(site: Site) -> Layer:
    """Return an operator as C.

    Raises:
        UnsupportedError: it is not covered, or not as it is here.
    """
    operator = site.operator
    require(operator.name in KERNELS, "not covered")
    tensors = [site.graph.tensor(index) for index in (*operator.inputs, *operator.outputs) if index >= 0]
    unknown = {tensor.dtype for tensor in tensors if not _is_made(tensor)}
    require(not unknown, f"type {', '.join(sorted(unknown))}")
    return KERNELS[operator.name](site)
