"""From the operators of a runtime's graph to layers that a float and a quantized graph have in common.

Quantizers fold normalisation into weights, let a clipping range stand for a ReLU, and put quantize and dequantize
pairs between the layers. What stays the same is the value that a layer hands to the next one: after its bias, its
normalisation, its activation and its rounding. A `Block` is an operator with everything up to that value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.core.contracts import TracedLayer
from edgewright.core.tensors import Arrays


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator: its names (the first is shown), the tensors it reads, and the tensor it makes first."""

    names: tuple[str, ...]
    operator: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True)
class Operators:
    """How one runtime calls the operators that matter here.

    Attributes:
        weighted: has weights when one of its inputs is constant.
        rounding: quantize, dequantize and both in one.
        affine: belongs to the layer before it when all its other inputs are constant: a bias, a scale.
        following: belongs to the layer before it: activations, normalisation with constants, casts.
        moving: changes the shape or the order of values alone: never a layer.
    """

    weighted: frozenset[str]
    rounding: frozenset[str]
    affine: frozenset[str]
    following: frozenset[str]
    moving: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A layer: the operator that begins it, and the tensor that ends it.

    names: of all its operators. sources: positions of the layers that it reads.
    """

    names: tuple[str, ...]
    operator: str
    is_weighted: bool
    sources: tuple[int, ...]
    tensor: str


def blocks(
    nodes: Sequence[Node], constants: frozenset[str], outputs: frozenset[str], operators: Operators
) -> list[Block]:
    """Return the layers of a graph in the order of `nodes`.

    Args:
        nodes: in the order of execution.
        constants: tensors that do not depend on the inputs; what is computed of them alone is found here.
        outputs: tensors that the graph returns, which end a layer.
    """
    fixed = set(constants)
    live: list[Node] = []
    for node in nodes:
        if all(name in fixed for name in node.inputs):
            fixed.add(node.output)
        else:
            live.append(node)
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in live:
        for name in set(node.inputs) - fixed:
            readers[name].append(node)
    taken: set[str] = set()
    origins: dict[str, set[int]] = {}  # tensor -> positions of the layers that it comes from
    found: list[Block] = []
    for node in live:
        if node.output in taken:
            continue
        sources = set().union(*(origins.get(name, set()) for name in node.inputs))
        if node.operator in operators.rounding | operators.moving:
            origins[node.output] = sources
            continue
        origins[node.output] = {len(found)}
        names, tensor = list(node.names), node.output
        is_parted = False
        while following := _next(readers[tensor], fixed, operators, is_parted):
            is_final = tensor in outputs
            if is_final and following.operator not in operators.rounding:
                break
            is_parted |= len(readers[tensor]) > 1
            tensor = following.output
            taken.add(tensor)
            origins[tensor] = {len(found)}
            if following.operator not in operators.rounding:
                names += following.names
        is_weighted = node.operator in operators.weighted and any(name in fixed for name in node.inputs)
        found.append(
            Block(
                names=tuple(names),
                operator=node.operator,
                is_weighted=is_weighted,
                sources=tuple(sorted(sources)),
                tensor=tensor,
            )
        )
    return found


def _next(readers: Sequence[Node], fixed: set[str], operators: Operators, is_parted: bool) -> Node | None:
    """Return the operator that goes on with the layer, or None at its end."""
    if readers and all(reader.operator in operators.rounding for reader in readers):
        return readers[0]
    if is_parted or len(readers) != 1:
        return None
    (reader,) = readers
    if reader.operator in operators.following:
        return reader
    is_alone = sum(name not in fixed for name in reader.inputs) == 1
    return reader if reader.operator in operators.affine and is_alone else None


def within(sizes_bytes: Mapping[str, int], max_bytes: int) -> list[str]:
    """Return the tensors, smallest first, that together stay within `max_bytes`: as many layers as can be."""
    chosen, total = [], 0
    for name, size in sorted(sizes_bytes.items(), key=lambda item: item[1]):
        total += size
        if total > max_bytes:
            break
        chosen.append(name)
    return chosen


def layers(found: Sequence[Block], values: Arrays) -> list[TracedLayer]:
    """Return the layers with their tensors of `values`."""
    return [
        TracedLayer(
            names=block.names,
            operator=block.operator,
            is_weighted=block.is_weighted,
            sources=block.sources,
            output=values.get(block.tensor),
        )
        for block in found
    ]
