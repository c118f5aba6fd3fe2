"""Layers and signature of a Core ML `.mlpackage`, read without coremltools; nothing in it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgewright.backends.coreml_file import package_files, package_of, read_package
from edgewright.backends.coreml_interpreter import operations_of, unsupported
from edgewright.backends.coreml_records import SUB_BYTE_BITS, Block, Constant, Operation, TensorType
from edgewright.core.files import sha256_of_files
from edgewright.core.tensors import TensorSpec
from edgewright.sources.inspection import Inspection, Layer, Shape, product, summary, times

_FLOATS = ("float16", "float32", "float64", "bfloat16")
_COMPRESSED = "constexpr_"
_RECURRENT = ("lstm", "gru", "rnn")
_LOOPS = ("while_loop", "cond")
_SCALED = ("quantize", "dequantize")
_BYTES = {"float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4} | dict.fromkeys(
    ("float16", "bfloat16", "int16", "uint16"), 2
)


def inspect_coreml(path: Path) -> Inspection:
    """Return the description of the package at `path`, or of the one that the file `path` lies in.

    Raises:
        UsageError: a file that lies in no package, or a package that was zipped.
        FormatMismatchError: no ML Program, or one that is not read here (several functions, states, images).
        IntegrityError: the package is broken.
    """
    folder = package_of(path)
    package = read_package(folder)
    model = package.model
    block = model.main.block
    files = package_files(folder)
    seen = _Graph(block, {named.name: named.type for named in model.main.inputs})
    layers = list(seen.layers())
    missing = unsupported(block)
    notes = [
        f"specification version {model.specification_version}, operators of {model.main.opset}",
        f"weights by type: {seen.weights_by_type()}",
    ]
    if seen.compressions:
        notes.append(f"compressed weights: {', '.join(f'{k} ({n})' for k, n in seen.compressions.items())}")
    if missing:
        notes.append(f"not executed by the interpreter here: {', '.join(missing)}")
    return summary(
        name=folder.name,
        model_format="coreml",
        sha256=sha256_of_files(files),
        size_bytes=sum(file.stat().st_size for file in files),
        inputs=[TensorSpec(name=f.name, shape=f.shape, dtype=f.dtype) for f in model.inputs],
        outputs=[
            TensorSpec(name=f.name, shape=f.shape or seen.shape(f.name) or (), dtype=f.dtype)
            for f in model.outputs
        ],
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        precision=seen.precision(),
        notes=notes,
    )


class _Graph:
    """The operators of a block, with the types of everything that has a name."""

    def __init__(self, block: Block, inputs: Mapping[str, object]) -> None:
        self._operations = list(operations_of(block))
        self._types = dict(inputs)
        self._constants: dict[str, Constant] = {}
        self._dense: set[str] = set()  # names of constants, and of what is decompressed from them
        self._counted: set[str] = set()
        self._inline: list[Constant] = []  # written where they are used, as compressed weights are
        for operation in self._operations:
            for inner in operation.blocks:
                self._types |= {named.name: named.type for named in inner.inputs}
            for named in operation.outputs:
                self._types[named.name] = named.type
                if operation.kind == "const":
                    value = operation.attributes.get("val")
                    if value is not None:
                        self._constants[named.name] = value
                if operation.kind == "const" or operation.kind.startswith(_COMPRESSED):
                    self._dense.add(named.name)
            if operation.kind != "const":
                bound = [value for group in operation.inputs.values() for value in group]
                self._inline += [value for value in bound if isinstance(value, Constant)]
                self._inline += operation.attributes.values()
        self.compressions = Counter(
            operation.kind for operation in self._operations if operation.kind.startswith(_COMPRESSED)
        )

    def shape(self, name: str) -> Shape | None:
        """Return the shape that is declared for a value."""
        kind = self._types.get(name)
        return kind.shape if isinstance(kind, TensorType) else None

    def layers(self) -> Iterator[Layer]:
        """Yield every operator that computes something in each run."""
        for operation in self._operations:
            if operation.kind == "const" or operation.kind.startswith(_COMPRESSED):
                continue
            yield Layer(
                name=operation.name[:256],
                operator=operation.kind,
                output_shape=self.shape(operation.name) or (),
                parameters=self._parameters(operation),
                macs=self._macs(operation),
            )

    def weights_by_type(self) -> str:
        """Return the bytes of the constants of more than one element, by the type that they are stored in."""
        sizes: Counter[str] = Counter()
        for constant in (*self._constants.values(), *self._inline):
            kind = constant.type
            if isinstance(kind, TensorType) and kind.dtype != "string":
                count = product(kind.shape) or 0
                bits = SUB_BYTE_BITS.get(kind.dtype, 8 * _BYTES.get(kind.dtype, 1))
                sizes[kind.dtype] += -(-count * bits // 8) if count > 1 else 0
        told = [f"{size} bytes {name}" for name, size in sizes.most_common() if size]
        return ", ".join(told) or "none"

    def precision(self) -> str:
        """Return the precision in our words, by how the weights are stored."""
        kinds = " ".join(self.compressions)
        if "sparse" in kinds:
            return "pruned"
        if "lut" in kinds:
            return "w4"
        if "dequantize" in kinds or "shift_scale" in kinds:
            return "w8a8" if any(operation.kind in _SCALED for operation in self._operations) else "w8"
        floats: Counter[str] = Counter()
        for constant in self._constants.values():
            if isinstance(constant.type, TensorType) and constant.type.dtype in _FLOATS:
                floats[constant.type.dtype] += product(constant.type.shape) or 0
        return "fp16" if floats["float16"] > floats["float32"] else "fp32"

    def _names(self, operation: Operation, argument: str) -> list[str]:
        return [name for name in operation.inputs.get(argument, ()) if isinstance(name, str)]

    def _parameters(self, operation: Operation) -> int:
        """Return the elements of the floating-point constants that it reads, each counted once in the model."""
        if operation.kind in _SCALED:
            return 0
        total = 0
        for argument in operation.inputs:
            for name in self._names(operation, argument):
                kind = self._types.get(name)
                if name in self._counted or name not in self._dense or not isinstance(kind, TensorType):
                    continue
                count = product(kind.shape) or 0
                is_weight = kind.dtype in _FLOATS and (count > 1 or argument in ("weight", "bias"))
                if is_weight:
                    self._counted.add(name)
                    total += count
        return total

    def _argument_shape(self, operation: Operation, argument: str) -> Shape | None:
        names = self._names(operation, argument)
        return self.shape(names[0]) if names else None

    def _macs(self, operation: Operation) -> int | None:
        kind = operation.kind
        out, x = self.shape(operation.name), self._argument_shape(operation, "x")
        weight = self._argument_shape(operation, "weight")
        if kind in _LOOPS or kind == "einsum":
            return None
        if kind in ("conv", "linear"):
            return times(product(out), product(weight[1:])) if weight else None
        if kind == "conv_transpose":
            return times(product(x), product(weight[1:])) if weight else None
        if kind == "matmul" and x:
            # x times y sums over the dimension of x that the product does not have
            names = self._names(operation, "transpose_x")
            constant = self._constants.get(names[0]) if names else None
            is_turned = constant is not None and getattr(constant.content, "any", bool)()
            return times(product(out), x[-2 if is_turned and len(x) > 1 else -1])
        if kind == "scaled_dot_product_attention":
            query, value = (self._argument_shape(operation, name) for name in ("query", "value"))
            if not query or not value:
                return None
            return times(product(query[:-1]), value[-2], (query[-1] or 0) + (value[-1] or 0))
        if kind in _RECURRENT and x:
            matrices = ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back")
            shapes = [self._argument_shape(operation, name) for name in matrices]
            return times(product(x[:-1]), sum(product(shape) or 0 for shape in shapes if shape))
        return 0
