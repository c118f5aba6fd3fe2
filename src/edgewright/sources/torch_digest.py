"""The content digest of an exported PyTorch program.

The bytes of a `.pt2` file differ from one export to the next (archive times, stack traces, symbol names), so
the digest is taken over what the program computes: its graph, its signature and its tensors.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node


def digest_exported(exported: ExportedProgram) -> str:
    """Return the hex SHA-256 of the graph, the signature and the tensors of `exported`."""
    import torch

    digest = hashlib.sha256()

    def add(text: str) -> None:
        digest.update(text.encode())
        digest.update(b"\n")

    for name, module in exported.graph_module.named_modules():
        if isinstance(module, torch.fx.GraphModule):
            add(f"graph {name!r}")
            for line in _lines(module):
                add(line)
    for spec in (*exported.graph_signature.input_specs, *exported.graph_signature.output_specs):
        add(f"{spec.kind} {spec.arg} {spec.target}")
    held = {**exported.state_dict, **exported.constants}
    for name in sorted(held):
        value = held[name]
        if isinstance(value, torch.Tensor):
            add(f"tensor {name} {value.dtype} {list(value.shape)}")
            digest.update(_bytes_of(value))
        else:
            add(f"constant {name} {type(value).__qualname__}")
    return digest.hexdigest()


def _lines(module: GraphModule) -> list[str]:
    return [
        f"{node.op} {node.name} {_target_name(node)} {node.args} {node.kwargs} {_shape_of(node)}"
        for node in module.graph.nodes
    ]


def _target_name(node: Node) -> str:
    import torch

    target = node.target
    if isinstance(target, (str, torch._ops.OpOverload)):
        return str(target)
    # str() of a plain function holds its address.
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', type(target).__qualname__)}"


def _shape_of(node: Node) -> str:
    import torch

    value = node.meta.get("val") if node.op == "placeholder" else None
    if not isinstance(value, torch.Tensor):
        return ""
    # A dynamic dimension has a generated symbol; that it is dynamic is all that matters.
    return f"{value.dtype} {[d if isinstance(d, int) else '?' for d in value.shape]}"


def _bytes_of(tensor: torch.Tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().tobytes())
