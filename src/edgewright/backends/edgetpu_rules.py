"""Is a model ready for the Coral Edge TPU? Its documented rules, operator by operator.

Source: Coral, "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro), sections "Model requirements"
and "Supported operations", as of compiler 16 and runtime 14. The rules are what the vendor wrote down: a model that
keeps them may still be refused in part, so this is a check of readiness and no compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edgewright.backends import litert_file
from edgewright.core.tensors import Array
from edgewright.sources.tflite_file import FlatGraph, FlatModel, FlatOperator, FlatTensor

RUNTIMES = (13, 14)
MAX_SOFTMAX_ELEMENTS = 16_000
_INTEGERS = ("int8", "uint8")
_RECURRENT, _RECURRENT_WEIGHTS = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"), 9
_MAX_NAME = 80


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that an operator breaks, and what to do instead; `is_fatal` where the compiler cannot read the model."""

    reason: str
    rewrite: str
    is_fatal: bool = False


@dataclass(frozen=True, kw_only=True)
class OperatorCheck:
    """One operator; `caution` is a documented "might not be mapped", which is no violation."""

    position: int
    operator: str
    name: str
    violation: Violation | None = None
    caution: str = ""

    def __str__(self) -> str:
        return f"{self.operator} (operator {self.position}, {self.name!r})"


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What the rules say of a model.

    The compiler maps operators up to the first one that it cannot map; that one and all that follow run on the CPU.
    """

    operators: tuple[OperatorCheck, ...]

    @property
    def offending(self) -> tuple[OperatorCheck, ...]:
        """The operators that break a rule, in the order of execution."""
        return tuple(check for check in self.operators if check.violation is not None)

    @property
    def mapped(self) -> int:
        """How many operators come before the first that breaks a rule; 0 where the compiler cannot read the model."""
        if any(check.violation and check.violation.is_fatal for check in self.operators):
            return 0
        first = next(iter(self.offending), None)
        return len(self.operators) if first is None else self.operators.index(first)

    @property
    def is_ready(self) -> bool:
        """True when no operator breaks a rule."""
        return not self.offending

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "source": "coral.ai/docs/edgetpu/models-intro, compiler 16",
            "is_ready": self.is_ready,
            "mapped_operators": self.mapped,
            "operators": [
                {
                    "position": check.position,
                    "operator": check.operator,
                    "name": check.name,
                    "verdict": self._verdict(check),
                    "reason": check.violation.reason if check.violation else check.caution,
                    "rewrite": check.violation.rewrite if check.violation else "",
                }
                for check in self.operators
            ],
        }

    def _verdict(self, check: OperatorCheck) -> str:
        if check.violation is not None:
            return "breaks a rule"
        if check.position >= self.mapped:
            return "on the CPU, for it comes after the first that breaks a rule"
        return "keeps the rules, but might not be mapped" if check.caution else "keeps the rules"


def check_model(model: litert_file.Model, flat: FlatModel, *, runtime: int = RUNTIMES[-1]) -> Readiness:
    """Return what the rules say of the main graph.

    Args:
        flat: the same file, which tells names and types.
        runtime: the oldest version of the Edge TPU runtime that shall run the model.
    """
    graph = flat.graphs[0]
    checks = []
    for position, operator in enumerate(graph.operators):
        site = _Site(
            graph=graph,
            operator=operator,
            options=getattr(model.subgraphs[0].operators[position], "builtinOptions", None),
            model=model,
            position=position,
            runtime=runtime,
        )
        name = graph.tensors[operator.outputs[0]].name if operator.outputs else ""
        checks.append(
            OperatorCheck(
                position=position,
                operator=operator.name,
                name=name[:_MAX_NAME],
                violation=_violation(site),
                caution=_CAUTIONS.get(operator.name, ""),
            )
        )
    return Readiness(operators=tuple(checks))


@dataclass(frozen=True, kw_only=True)
class _Site:
    graph: FlatGraph
    operator: FlatOperator
    options: object
    model: litert_file.Model
    position: int
    runtime: int

    def option(self, name: str) -> int:
        """Return an option of the operator; 0, as in the schema, where the file leaves it out."""
        value = getattr(self.options, name, 0)
        return int(value) if value is not None else 0

    def tensor(self, place: int) -> FlatTensor | None:
        """Return input number `place`, or None where it is left out."""
        indices = self.operator.inputs
        return self.graph.tensors[indices[place]] if place < len(indices) and indices[place] >= 0 else None

    @property
    def output(self) -> FlatTensor | None:
        return self.graph.tensors[self.operator.outputs[0]] if self.operator.outputs else None

    def constant(self, place: int) -> Array | None:
        """Return the value of input number `place`, or None where it is no constant that can be read."""
        tensor = self.tensor(place)
        if tensor is None or not tensor.data_bytes or tensor.dtype not in ("int8", "uint8", "int32", "int64"):
            return None
        raw = self.model.buffers[self.model.subgraphs[0].tensors[self.operator.inputs[place]].buffer].data
        if raw is None or prod(tensor.shape) * np.dtype(tensor.dtype).itemsize != len(raw):
            return None
        return np.frombuffer(np.asarray(raw, dtype=np.uint8).tobytes(), dtype=tensor.dtype).reshape(
            tensor.shape
        )


_Rule = Callable[[_Site], Violation | None]


def _violation(site: _Site) -> Violation | None:
    operator = site.operator
    if operator.name not in _RULES:
        what = "is a custom operator" if operator.is_custom else "is not among the supported operations"
        return Violation(reason=what, rewrite=_REWRITES.get(operator.name, _NO_REWRITE))
    least, rules = _RULES[operator.name]
    if site.runtime < least:
        return Violation(
            reason=f"needs runtime {least} or newer, {site.runtime} was asked for",
            rewrite=f"run it with runtime {least} (option min_runtime_version={least})",
        )
    for rule in (_version, _types, _static, _rank, _constants, *rules):
        found = rule(site)
        if found is not None:
            return found
    return None


def _version(site: _Site) -> Violation | None:
    codes = site.model.operatorCodes
    version = codes[site.model.subgraphs[0].operators[site.position].opcodeIndex].version
    least = _UNKNOWN_VERSIONS.get(site.operator.name)
    if least is None or version < least:
        return None
    return Violation(
        reason=f"has version {version}, and compiler 16 knows none from {least} on: it cannot read the model",
        rewrite="export the model with int8 inputs and per-channel weights alone, or with an older converter (TF 2.5)",
        is_fatal=True,
    )


def _types(site: _Site) -> Violation | None:
    """Activations and weights are 8-bit; a constant may be an int32 bias, axis or size."""
    inputs = site.operator.inputs
    if (
        site.operator.name in _RECURRENT
    ):  # behind data and weights come biases and the state, which may be wider
        inputs = inputs[:_RECURRENT_WEIGHTS]
    for index in (*inputs, *site.operator.outputs):
        if index < 0:
            continue
        tensor = site.graph.tensors[index]
        is_helper = tensor.data_bytes > 0 and tensor.dtype in ("int32", "int64")
        if is_helper or (tensor.dtype in _INTEGERS and (tensor.is_quantized or not tensor.data_bytes)):
            continue
        return Violation(
            reason=f"{tensor.name[:_MAX_NAME]!r} is {tensor.dtype}; every tensor must be int8 or uint8 with a scale",
            rewrite="quantize the whole model to w8a8, this operator too, or move it out of the model",
        )
    return None


def _static(site: _Site) -> Violation | None:
    for index in (*site.operator.inputs, *site.operator.outputs):
        if index >= 0 and any(size < 1 for size in site.graph.tensors[index].signature):
            tensor = site.graph.tensors[index]
            return Violation(
                reason=f"{tensor.name[:_MAX_NAME]!r} has the dynamic shape {list(tensor.signature)}",
                rewrite="export the model with fixed sizes (--input-shape)",
            )
    return None


def _rank(site: _Site) -> Violation | None:
    for index in (*site.operator.inputs, *site.operator.outputs):
        if index >= 0 and not site.graph.tensors[index].data_bytes:
            tensor = site.graph.tensors[index]
            if any(size > 1 for size in tensor.shape[:-3]):
                return Violation(
                    reason=f"{tensor.name[:_MAX_NAME]!r} is {list(tensor.shape)}; only the 3 innermost dimensions may "
                    "be larger than 1",
                    rewrite="use a batch of 1, and fold further dimensions into the three innermost by reshapes "
                    "outside of the model",
                )
    return None


def _constants(site: _Site) -> Violation | None:
    """Weights, biases, axes and sizes are constant when the model is compiled."""
    for place in _PARAMETERS.get(site.operator.name, ()):
        tensor = site.tensor(place)
        if tensor is not None and not tensor.data_bytes and prod(tensor.shape) > 0:
            return Violation(
                reason=f"its parameter {tensor.name[:_MAX_NAME]!r} is computed at run time",
                rewrite="make it a constant of the model",
            )
    return None


def _no_activation(site: _Site) -> Violation | None:
    if site.option("fusedActivationFunction") == 0:
        return None
    return Violation(
        reason="has a fused activation",
        rewrite="put the activation behind it, as an operator of its own (RELU, RELU6)",
    )


def _same_dilation(site: _Site) -> Violation | None:
    across, down = site.option("dilationWFactor") or 1, site.option("dilationHFactor") or 1
    if across == down:
        return None
    return Violation(
        reason=f"dilates by {down} down and {across} across",
        rewrite="use the same dilation in both directions",
    )


def _zeros_alone(site: _Site) -> Violation | None:
    """A constant that is concatenated is one of two inputs, and all zeros: it pads."""
    places = [i for i in range(len(site.operator.inputs)) if (t := site.tensor(i)) and t.data_bytes]
    if not places:
        return None
    values = site.constant(places[0])
    tensor = site.model.subgraphs[0].tensors[site.operator.inputs[places[0]]]
    zeros = tensor.quantization.zeroPoint if tensor.quantization else None
    zero = int(zeros[0]) if zeros is not None and len(zeros) else 0
    if len(site.operator.inputs) == 2 and values is not None and bool((values == zero).all()):
        return None
    return Violation(
        reason="a constant is concatenated that is not the one other input, or not all zeros",
        rewrite="pad with PAD, or add the constant on the host",
    )


def _default_weights(site: _Site) -> Violation | None:
    if site.option("weightsFormat") == 0:
        return None
    return Violation(reason="has shuffled weights", rewrite="export it with weights in the default format")


def _one_dimensional_output(site: _Site) -> Violation | None:
    return _one_dimensional(
        site.output, "its output", "flatten its input before it, and reshape behind it on the host"
    )


def _one_dimensional_alpha(site: _Site) -> Violation | None:
    return _one_dimensional(
        site.tensor(1), "its alpha", "share alpha over height and width (shared_axes=[1, 2])"
    )


def _small_softmax(site: _Site) -> Violation | None:
    tensor = site.tensor(0)
    found = _one_dimensional(
        tensor, "its input", "compute it on the host, or reshape so that one row is left"
    )
    if found or tensor is None or prod(tensor.shape) <= MAX_SOFTMAX_ELEMENTS:
        return found
    return Violation(
        reason=f"has {prod(tensor.shape)} elements, at most {MAX_SOFTMAX_ELEMENTS} are supported",
        rewrite="compute it on the host",
    )


def _one_dimensional(tensor: FlatTensor | None, what: str, rewrite: str) -> Violation | None:
    if tensor is None or prod(tensor.shape[:-1]) <= 1:
        return None
    return Violation(reason=f"{what} is {list(tensor.shape)}, but must be one-dimensional", rewrite=rewrite)


def _no_batch_reduction(site: _Site) -> Violation | None:
    axes = _axes(site)
    if axes is None or 0 not in axes:
        return None
    return Violation(reason="reduces the batch dimension", rewrite="leave dimension 0 out of its axes")


def _whole_channels(site: _Site) -> Violation | None:
    axes, tensor = _axes(site), site.tensor(0)
    if axes is None or tensor is None or len(tensor.shape) - 1 not in axes or tensor.shape[-1] % 4 == 0:
        return None
    return Violation(
        reason=f"averages over {tensor.shape[-1]} channels, which is no multiple of 4",
        rewrite="pad the channels to a multiple of 4, or average on the host",
    )


def _axes(site: _Site) -> set[int] | None:
    values, tensor = site.constant(1), site.tensor(0)
    if values is None or tensor is None or len(tensor.shape) < 2:
        return None
    return {int(axis) % len(tensor.shape) for axis in values.reshape(-1)}


def _no_batch_axis(site: _Site) -> Violation | None:
    output = site.output
    rank = len(output.shape) if output else 0
    axis = site.option("axis")
    if site.operator.name == "SPLIT":
        values = site.constant(0)
        axis = int(values.reshape(-1)[0]) if values is not None and values.size else 1
    if rank < 2 or axis % rank:
        return None
    return Violation(
        reason="works along the batch dimension",
        rewrite="put the values side by side along another dimension",
    )


def _no_batch_padding(site: _Site) -> Violation | None:
    values = site.constant(1)
    tensor = site.tensor(0)
    is_batched = tensor is not None and len(tensor.shape) > 1
    if values is None or not is_batched or values.ndim != 2 or not values[0].any():
        return None
    return Violation(reason="pads the batch dimension", rewrite="pad other dimensions alone")


def _plain_slice(site: _Site) -> Violation | None:
    strides = site.constant(3)
    if strides is not None and (strides != 1).any():
        return Violation(
            reason="slices with strides other than 1", rewrite="use a strided pooling, or slice on the host"
        )
    if site.option("ellipsisMask") or site.option("newAxisMask"):
        return Violation(reason="slices with an ellipsis or a new axis", rewrite="name every begin and end")
    return None


_RULES: Mapping[str, tuple[int, Sequence[_Rule]]] = {
    "ADD": (0, ()),
    "AVERAGE_POOL_2D": (0, (_no_activation,)),
    "CONCATENATION": (0, (_no_activation, _zeros_alone)),
    "CONV_2D": (0, (_same_dilation,)),
    "DEPTHWISE_CONV_2D": (0, (_same_dilation,)),
    "EXPAND_DIMS": (13, ()),
    "FULLY_CONNECTED": (0, (_default_weights, _one_dimensional_output)),
    "L2_NORMALIZATION": (0, ()),
    "LOGISTIC": (0, ()),
    "LSTM": (14, ()),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (14, ()),
    "MAXIMUM": (0, ()),
    "MAX_POOL_2D": (0, (_no_activation,)),
    "MEAN": (0, (_no_batch_reduction, _whole_channels)),
    "MINIMUM": (0, ()),
    "MUL": (0, ()),
    "PACK": (13, (_no_batch_axis,)),
    "PAD": (0, (_no_batch_padding,)),
    "PRELU": (13, (_one_dimensional_alpha,)),
    "QUANTIZE": (13, ()),
    "REDUCE_MAX": (14, (_no_batch_reduction,)),
    "REDUCE_MIN": (14, (_no_batch_reduction,)),
    "RELU": (0, ()),
    "RELU6": (0, ()),
    "RELU_N1_TO_1": (0, ()),
    "RESHAPE": (0, ()),
    "RESIZE_BILINEAR": (0, ()),
    "RESIZE_NEAREST_NEIGHBOR": (0, ()),
    "RSQRT": (14, ()),
    "SLICE": (0, ()),
    "SOFTMAX": (0, (_small_softmax,)),
    "SPACE_TO_DEPTH": (0, ()),
    "SPLIT": (0, (_no_batch_axis,)),
    "SQUARED_DIFFERENCE": (14, ()),
    "SQUEEZE": (0, ()),
    "STRIDED_SLICE": (0, (_plain_slice,)),
    "SUB": (0, ()),
    "SUM": (13, (_no_batch_reduction,)),
    "TANH": (0, ()),
    "TRANSPOSE": (14, ()),
    "TRANSPOSE_CONV": (13, ()),
}
_PARAMETERS: Mapping[str, Sequence[int]] = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (0, 1, 3),
    "PRELU": (1,),
    **dict.fromkeys(
        ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "PAD", "TRANSPOSE", "EXPAND_DIMS", "RESHAPE"), (1,)
    ),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), (1,)),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "SPLIT": (0,),
}
# Reported by users of compiler 16.0 (google-coral/edgetpu, issues 631, 845, 879); the last one came years after it.
_UNKNOWN_VERSIONS: Mapping[str, int] = {
    "CONV_2D": 6,
    "TRANSPOSE_CONV": 4,
    "QUANTIZE": 3,
    "FULLY_CONNECTED": 12,
}
_CAUTIONS: Mapping[str, str] = {
    "RESHAPE": "might not be mapped where its tensors are large",
    "RESIZE_BILINEAR": "might not be mapped at some sizes, to avoid a loss in precision",
    "RESIZE_NEAREST_NEIGHBOR": "might not be mapped at some sizes, to avoid a loss in precision",
}
_NO_REWRITE = (
    "replace it by supported operations, or cut the model before it and compute the rest on the host"
)
_REWRITES: Mapping[str, str] = {
    "HARD_SWISH": "train with RELU6 in its place, or write x * RELU6(x + 3) / 6 with ADD, RELU6 and MUL",
    "LEAKY_RELU": "write it as PRELU with one alpha for all channels, or as MAXIMUM(x, alpha * x)",
    "ELU": "train with RELU6 in its place",
    "GELU": "train with RELU6 in its place",
    "PADV2": "pad with zeros (PAD)",
    "MIRROR_PAD": "pad with zeros (PAD)",
    "SPLIT_V": "use equal parts (SPLIT), or SLICE",
    "UNPACK": "use SLICE and RESHAPE",
    "GATHER": "use SLICE where the indices are consecutive",
    "DIV": "multiply by the reciprocal (MUL)",
    "SQUARE": "multiply the tensor by itself (MUL)",
    "SQRT": "use RSQRT and MUL",
    "ABS": "write it as MAXIMUM(x, -x)",
    "NEG": "multiply by -1 (MUL)",
    "BATCH_MATMUL": "use FULLY_CONNECTED or CONV_2D with constant weights",
    "DEPTH_TO_SPACE": "use TRANSPOSE_CONV, or RESIZE_NEAREST_NEIGHBOR and CONV_2D",
    "ARG_MAX": "give the scores, and take the largest on the host",
    "TOPK_V2": "give the scores, and sort on the host",
    "DEQUANTIZE": "give the integers, and dequantize on the host",
    "CAST": "feed and take int8, and convert on the host",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "use two unidirectional LSTMs",
    "edgetpu-custom-op": "it is compiled already: give it to the device, or compile the model that it was made of",
    "TFLite_Detection_PostProcess": "leave it as the last operator: it runs on the CPU (cpu_operators=allow)",
}
