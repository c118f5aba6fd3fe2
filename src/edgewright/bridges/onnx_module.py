"""The torch module that runs a plan; imported in a worker alone."""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.export import ExportedProgram

from edgewright.bridges import onnx_fold, onnx_values
from edgewright.bridges.onnx_ops import torch_dtype
from edgewright.bridges.onnx_plan import Plan
from edgewright.core.errors import ConversionError
from edgewright.core.program import Program


class PlanModule(nn.Module):
    """Walks the steps of a plan; its weights are parameters, its other constants buffers.

    `forward` takes the inputs of the program in their order and returns a tuple of its outputs.
    """

    def __init__(self, plan: Plan, program: Program) -> None:
        super().__init__()
        self.training = False
        self._plan = plan
        texts = [spec.name for spec in program.outputs if spec.dtype == "string"]
        if texts:
            raise ConversionError(
                f"the outputs {', '.join(texts)} hold strings, which no tensor program gives."
            )
        self._dtypes = [getattr(torch, spec.dtype) for spec in program.outputs]
        self._weights: dict[str, str] = {}
        self._infinite: dict[str, list[tuple[str, float]]] = {}  # masks of a weight, and what stands there
        self._last = _last_uses(plan)
        used = [name for step in plan.steps for name in step.inputs if name in step.weights]
        used += [name for name in plan.outputs if name in plan.constants]
        for name in dict.fromkeys(name for name in used if name is not None):
            tensor = (
                plan.weights[name] if name in plan.weights else onnx_values.tensor_of(plan.constants[name])
            )
            if tensor.numel() == 0:  # torch.export.save cannot store it
                continue
            attribute = f"c{len(self._weights)}_{re.sub(r'[^A-Za-z0-9_]', '_', name.partition('#')[0])[:64]}"
            self._weights[name] = attribute
            if tensor.is_floating_point() and bool(torch.isinf(tensor).any()):
                # litert-torch writes an infinite weight as the largest float; what it computes stays infinite.
                self._infinite[name] = []
                for sign, edge in (("above", float("inf")), ("below", float("-inf"))):
                    hits = tensor == edge
                    if bool(hits.any()):
                        self.register_buffer(f"{attribute}_{sign}", hits)
                        self._infinite[name].append((f"{attribute}_{sign}", edge))
                tensor = torch.where(torch.isinf(tensor), torch.zeros_like(tensor), tensor)
            if tensor.is_floating_point():
                self.register_parameter(attribute, nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(attribute, tensor)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of the model, in their order and dtypes."""
        plan = self._plan
        values: dict[str, torch.Tensor] = {}
        for name, value in zip(plan.inputs, inputs, strict=True):
            values[name] = onnx_values.widened(value)
        for index, step in enumerate(plan.steps):
            arguments = [None if name is None else self._value(name, values) for name in step.inputs]
            results = onnx_fold.call(step.handler, step.node, arguments)
            values.update((name, value) for name, value in zip(step.outputs, results, strict=False) if name)
            for name in self._last.get(index, ()):
                values.pop(name, None)
        outputs: list[torch.Tensor] = []
        seen: set[str] = set(plan.inputs)
        for name, dtype in zip(plan.outputs, self._dtypes, strict=True):
            value = self._value(name, values)
            value = value if value.dtype is dtype else value.to(dtype)
            # An output must be a tensor of its own: not an input, a weight or another output.
            outputs.append(value.clone() if name in seen or name in plan.constants else value)
            seen.add(name)
        return tuple(outputs)

    def _value(self, name: str, values: dict[str, torch.Tensor]) -> torch.Tensor:
        if name in values:
            return values[name]
        if (
            name not in self._weights
        ):  # the handler only looks at its constant value, or at its shape; or it is empty
            value = self._plan.constants[name]
            if value.size == 0:
                return torch.zeros(value.shape, dtype=torch_dtype(value.dtype))
            return self._plan.weights[name]
        tensor = getattr(self, self._weights[name])
        assert isinstance(tensor, torch.Tensor)
        for mask, edge in self._infinite.get(name, ()):
            tensor = torch.where(getattr(self, mask), torch.full((), edge, dtype=tensor.dtype), tensor)
        return tensor


def _last_uses(plan: Plan) -> dict[int, list[str]]:
    """Return for each step the values that nobody reads after it."""
    last: dict[str, int] = {}
    for index, step in enumerate(plan.steps):
        last.update((name, index) for name in step.inputs if name is not None)
    ends: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in plan.outputs:
            ends.setdefault(index, []).append(name)
    return ends


def without_idle_casts(exported: ExportedProgram) -> ExportedProgram:
    """Return the program without casts to the type that a value has, and without the checks beside them."""
    graph = exported.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target is torch.ops.aten.to.dtype:
            source = node.args[0]
            is_output = source.op == "placeholder" and any(user.op == "output" for user in node.users)
            if source.meta["val"].dtype == node.meta["val"].dtype and not is_output:
                node.replace_all_uses_with(source)
                exported.graph_signature.replace_all_uses(node.name, source.name)
                graph.erase_node(node)
    graph.lint()
    exported.graph_module.recompile()
    return exported
