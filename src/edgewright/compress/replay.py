"""Runs a module node by node on all calibration batches at once, so that layers can be corrected one after another.

Correcting layer k needs what the corrected layers before it give. Running the model anew for each layer would cost
the square of the layers; here each node runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgewright.core.errors import ConversionError

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

    from edgewright.compress.passes import Batch

    # Called before layer `name` runs: the layer, its inputs and the float module's outputs, one of each a batch.
    Visit = Callable[[str, torch.nn.Module, list[torch.Tensor], list[torch.Tensor]], None]

MAX_REPLAY_BYTES = 1 << 30


class Replay:
    """The values of a graph module between its nodes, for a list of batches; values without further use are freed."""

    def __init__(self, module: GraphModule, batches: Sequence[Batch]) -> None:
        self._module = module
        self._layers = dict(module.named_modules())
        self._batches = batches
        self._nodes = [node for node in module.graph.nodes if node.op != "output"]
        self._position = 0
        self._values: dict[Node, list[object]] = {}
        self._unread: dict[Node, int] = {}
        self.largest_bytes = 0

    @property
    def next_node(self) -> Node | None:
        """The node that runs next; None at the end."""
        return self._nodes[self._position] if self._position < len(self._nodes) else None

    def arguments(self, node: Node) -> list[tuple[object, ...]]:
        """Return the arguments of `node`, which is about to run, for each batch."""
        return [tuple(self._filled(node.args, batch)) for batch in range(len(self._batches))]  # type: ignore[arg-type]

    def _filled(self, arguments: object, batch: int) -> object:
        import torch

        def value(source: Node) -> object:
            return self._values[source][batch]

        return torch.fx.node.map_arg(arguments, value)  # type: ignore[type-var, arg-type]

    def step(self) -> list[object]:
        """Run the next node and return its value for each batch."""
        node = self.next_node
        assert node is not None
        self._position += 1
        if node.op == "placeholder":
            number = sum(1 for other in self._nodes[: self._position] if other.op == "placeholder") - 1
            values: list[object] = [batch[number] for batch in self._batches]
        elif node.op == "get_attr":
            held: object = self._module
            for part in str(node.target).split("."):
                held = getattr(held, part)
            values = [held] * len(self._batches)
        else:
            call = self._layers[str(node.target)] if node.op == "call_module" else node.target
            assert callable(call)
            values = []
            for batch, arguments in enumerate(self.arguments(node)):
                values.append(call(*arguments, **self._filled(node.kwargs, batch)))  # type: ignore[arg-type]
            self._free(node)
        self._values[node] = values
        self._unread[node] = len(node.users)
        self.largest_bytes = max(self.largest_bytes, self._live_bytes())
        return values

    def _free(self, node: Node) -> None:
        for source in node.all_input_nodes:
            self._unread[source] -= 1
            if self._unread[source] <= 0:
                del self._values[source]

    def _live_bytes(self) -> int:
        import torch

        return sum(
            value.numel() * value.element_size()
            for node, values in self._values.items()
            if node.op != "get_attr"
            for value in values
            if isinstance(value, torch.Tensor)
        )


def correct_layers(
    reference: GraphModule, quantized: GraphModule, batches: Sequence[Batch], visit: Visit
) -> None:
    """Run both modules side by side and call `visit` for each quantized layer just before it runs.

    What `visit` changes in a layer has its effect on the layers behind it. A layer that is called more than once is
    not visited. Batches are left out from the end where the values of all would take over MAX_REPLAY_BYTES.

    Args:
        reference: the float module, with layers of the same names.
        quantized: as `compress.module.to_module` gives a quantized program; changed in place.
    Raises:
        ConversionError: the two modules have no quantized layer in common.
    """
    import torch

    from edgewright.compress.equalizing import call_counts

    layers = dict(quantized.named_modules())
    counts, reference_counts = call_counts(quantized.graph), call_counts(reference.graph)
    names = [
        name
        for name in counts
        if hasattr(layers[name], "weight_quantizer") and counts[name] == reference_counts.get(name) == 1
    ]
    if not names:
        raise ConversionError("the float and the quantized module have no quantized layer in common.")
    with torch.no_grad():
        batches = _affordable(quantized, reference, batches)
        float_run, run = Replay(reference, batches), Replay(quantized, batches)
        expected: dict[str, list[torch.Tensor]] = {}
        while (node := run.next_node) is not None:
            name = str(node.target)
            if node.op == "call_module" and name in names:
                _run_until(float_run, name, names, expected)
                inputs = [arguments[0] for arguments in run.arguments(node)]
                visit(name, layers[name], inputs, expected.pop(name))  # type: ignore[arg-type]
            run.step()


def _run_until(run: Replay, name: str, names: Sequence[str], found: dict[str, list[torch.Tensor]]) -> None:
    """Run until layer `name` has run; `found` takes its outputs and those of all layers of `names` on the way."""
    while name not in found:
        node = run.next_node
        assert node is not None
        values = run.step()
        if node.op == "call_module" and str(node.target) in names:
            found[str(node.target)] = values  # type: ignore[assignment]


def _affordable(quantized: GraphModule, reference: GraphModule, batches: Sequence[Batch]) -> Sequence[Batch]:
    """Return the first batches whose values fit into MAX_REPLAY_BYTES, at least one."""
    largest = 0
    for module in (quantized, reference):
        first = Replay(module, batches[:1])
        while first.next_node is not None:
            first.step()
        largest += first.largest_bytes
    return batches[: max(1, MAX_REPLAY_BYTES // max(largest, 1))]


def channel_axis(layer: torch.nn.Module) -> int:
    """Return the axis of a layer's output channels."""
    from torch import nn

    return -1 if isinstance(layer, nn.Linear) else 1


def outputs_of(layer: torch.nn.Module, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what a convolution or linear layer gives with `weight` in place of its own."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return nn.functional.linear(values, weight, layer.bias)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    made: torch.Tensor = layer._conv_forward(values, weight, layer.bias)
    return made


def mean_of_channels(outputs: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    """Return the mean of each channel over all batches: float64 [channels]."""
    import torch

    sums = torch.zeros(outputs[0].shape[axis], dtype=torch.float64)
    count = 0
    for tensor in outputs:
        flat = tensor.movedim(axis, 0).flatten(1)
        sums += flat.double().sum(dim=1)
        count += flat.shape[1]
    return sums / count
