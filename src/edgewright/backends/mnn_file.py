"""MNN's `.mnn` flatbuffer: read with bounds on every offset and count, without MNN.

A flatbuffer table begins with the distance back to its vtable, which lists the distance of each field from the table;
0 is a field that is not there. Source: FlatBuffers, "internals"; field numbers: MNN, `schema/default/MNN.fbs`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.files import write_aside

MAX_BYTES = 2 << 30
MAX_ENTRIES = 1 << 24
# Fields of Net, Op, SubGraphProto, Convolution2D and its parts, Blob
NET_OPERATORS, NET_OUTPUTS, NET_TENSORS, NET_SUBGRAPHS, NET_UUID = 3, 4, 7, 10, 11
OP_INPUTS, OP_MAIN_TYPE, OP_MAIN, OP_NAME, OP_OUTPUTS, OP_TYPE = 0, 1, 2, 3, 4, 5
SUBGRAPH_OPERATORS = 4
CONVOLUTION_COMMON, CONVOLUTION_WEIGHT, CONVOLUTION_BIAS, CONVOLUTION_QUANTIZED = 0, 1, 2, 3
COMMON_KERNEL_X, COMMON_KERNEL_Y, COMMON_GROUP, COMMON_OUTPUTS, COMMON_INPUTS = 2, 3, 9, 10, 11
QUANTIZED_BUFFER, QUANTIZED_SCALES, QUANTIZED_TYPE = 0, 1, 2
INPUT_SHAPE, INPUT_DTYPE = 0, 1
BLOB_DTYPE, BLOB_BYTES = 2, {3: 1, 4: 1, 5: 4, 6: 8, 7: 4}  # field -> bytes of an element

# Number of the first one -> names of operators. As MNN 3.6.1 spells them when it writes a net as JSON.
_NAMES = {
    0: """
        AbsVal QuantizedAdd ArgMax AsString InstanceNorm BatchToSpaceND Copy BinaryOp Bnll Cast Concat Const
        Convolution ConvolutionDepthwise Crop CropAndResize ImageProcess Deconvolution
        DeconvolutionDepthwise Dequantize DetectionOutput Dropout Eltwise ELU Unique Exp ExpandDims Fill
        Flatten Im2Col Gather GatherV2 Im2Seq InnerProduct Input Interp Log LRN LSTM MatMul MoE
        NonMaxSuppression NonMaxSuppressionV2 Normalize Pack Padding Permute Pooling Power PReLU PriorBox
        Proposal QuantizedAvgPool QuantizedBiasAdd QuantizedConcat QuantizedDepthwiseConv2D
        QuantizedLogistic RasterAndInterpolate QuantizedMaxPool Texture RasterDiff QuantizedReshape
        QuantizedSoftmax QuantizeMaxMin QuantizeV2 Range Rank ReduceJoin Reduction ReLU ReLU6
        RequantizationRange Requantize Reshape Resize RNN ROIPooling Scale Selu Seq2Out Shape Sigmoid Size
        Slice SliceTf Softmax SpaceToBatchND SpatialProduct Col2Im Segment Squeeze StridedSlice CastLike
        StringSplit StringToNumber TanH TfQuantizedConv2D Threshold Tile TopKV2 Transpose UnaryOp Unpack
        Where Moments RNNSequenceGRU BatchMatMul Unsqueeze CosineSimilarity DepthToSpace SpaceToDepth
        ReverseSequence Pooling3D Convolution3D MatrixBandPart GatherND DetectionPostProcess UnravelIndex
        ScatterNd OneHot BroadcastTo Dilation2D Interp3D
    """,
    128: """
        Raster ConvertTensor ArgMin LinSpace RandomUniform TensorArray TensorArraySize TensorArrayRead
        TensorArrayWrite TensorArrayGather TensorArrayScatter TensorArraySplit TensorArrayConcat
        LSTMBlockCell Reverse ROIAlign RandomNormal TensorArrayInsert TensorArrayErase EyeLike CumSum Det
        CumProd ScatterElements GatherElements Svd Histogram DynamicQuant Stft
    """,
    256: """
        Plugin Select ZerosLike Broastcast SetDiff1D ReluGrad Identity PoolGrad SoftmaxGrad
        Conv2DBackPropFilter TrainableParam BatchNorm ConvTranspose3D ZeroGrad
    """,
    299: "Attention FmhaV2 Fmhca SeqLen2Spatial SplitGeLU GroupNorm LinearAttention RoPE",
    512: "Extra ConvInt8 Int8ToFloat DepthwiseConvInt8",
    517: "FloatToInt8 EltwiseInt8",
    600: "While If",
    603: "LayerNorm GridSample",
}
_OPERATORS = {
    first + index: name for first, names in _NAMES.items() for index, name in enumerate(names.split())
}


@dataclass(frozen=True)
class Table:
    """A table of the buffer, at a position inside it."""

    buffer: memoryview
    position: int

    def _field(self, number: int) -> int | None:
        """Return the position of field `number`, or None where the table leaves it out."""
        vtable = self.position - self._unpack("<i", self.position)
        size = self._unpack("<H", vtable)
        if 4 + 2 * number + 2 > size:
            return None
        distance = self._unpack("<H", vtable + 4 + 2 * number)
        return self.position + distance if distance else None

    def _unpack(self, form: str, position: int) -> int:
        if position < 0 or position + struct.calcsize(form) > len(self.buffer):
            raise IntegrityError(
                f"the .mnn file is damaged: an offset points to byte {position} of {len(self.buffer)}. "
                "Convert the model again."
            )
        return int(struct.unpack_from(form, self.buffer, position)[0])

    def _vector(self, number: int, element_bytes: int) -> tuple[int, int]:
        """Return where the elements of vector `number` begin, and how many there are; (0, 0) where it is left out."""
        field = self._field(number)
        if field is None:
            return 0, 0
        start = field + self._unpack("<I", field)
        count = self._unpack("<I", start)
        if count > MAX_BYTES or start + 4 + count * element_bytes > len(self.buffer):
            raise IntegrityError(
                f"the .mnn file is damaged: a vector promises {count} elements of {element_bytes} bytes, but the "
                f"file has {len(self.buffer)} bytes. Convert the model again."
            )
        return start + 4, count

    def integer(self, number: int, *, form: str = "<i", default: int = 0) -> int:
        """Return the scalar field `number` of struct format `form`."""
        field = self._field(number)
        return default if field is None else self._unpack(form, field)

    def length(self, number: int, element_bytes: int) -> int:
        """Return how many elements vector `number` has."""
        return self._vector(number, element_bytes)[1]

    def integers(self, number: int) -> tuple[int, ...]:
        """Return the vector of 32-bit integers in field `number`."""
        start, count = self._vector(number, 4)
        return struct.unpack_from(f"<{count}i", self.buffer, start) if count else ()

    def text_at(self, number: int) -> tuple[int, int]:
        """Return where the string in field `number` begins, and its bytes."""
        return self._vector(number, 1)

    def text(self, number: int) -> str:
        """Return the string in field `number`."""
        start, count = self._vector(number, 1)
        return bytes(self.buffer[start : start + count]).decode("utf-8", errors="replace")

    def table(self, number: int) -> Table | None:
        """Return the table in field `number`."""
        field = self._field(number)
        return None if field is None else self._at(field)

    def tables(self, number: int) -> list[Table]:
        """Return the tables of the vector in field `number`."""
        start, count = self._vector(number, 4)
        if count > MAX_ENTRIES:
            raise IntegrityError(
                f"the .mnn file has {count} entries in one list; at most {MAX_ENTRIES} are read."
            )
        return [self._at(start + 4 * index) for index in range(count)]

    def texts(self, number: int) -> list[str]:
        """Return the strings of the vector in field `number`."""
        found = []
        for entry in self.tables(number):
            size = entry._unpack("<I", entry.position)
            if entry.position + 4 + size > len(self.buffer):
                raise IntegrityError(
                    "the .mnn file is damaged: a string ends outside. Convert the model again."
                )
            raw = bytes(self.buffer[entry.position + 4 : entry.position + 4 + size])
            found.append(raw.decode("utf-8", errors="replace"))
        return found

    def _at(self, field: int) -> Table:
        position = field + self._unpack("<I", field)
        self._unpack("<i", position)
        return Table(self.buffer, position)


def read_net(path: Path) -> Table:
    """Return the root table ("Net") of the `.mnn` file at `path`.

    Raises:
        FormatMismatchError: too large, or no MNN net.
        IntegrityError: an offset or a count leads outside the file.
    """
    size = path.stat().st_size
    if not 8 <= size <= MAX_BYTES:
        raise FormatMismatchError(f"{path} has {size} bytes; a .mnn of 8 to {MAX_BYTES} bytes is read.")
    return net_of(path.read_bytes(), path.name)


def net_of(content: bytes | bytearray, name: str) -> Table:
    """Return the root table of a net in memory, see `read_net`; `name` is for the message."""
    buffer = memoryview(content)
    root = Table(buffer, 0)._at(0)
    if not root.tables(NET_OPERATORS):
        raise FormatMismatchError(f"{name} is no net of MNN: it lists no operator. Convert the model again.")
    return root


def settle_uuid(path: Path) -> None:
    """Replace the random identity that MNN gives each file by one of its content: the same net, the same bytes.

    Raises:
        FormatMismatchError, IntegrityError: see `read_net`.
    """
    content = bytearray(path.read_bytes())
    start, count = net_of(content, path.name).text_at(NET_UUID)
    if count == 0:
        return
    content[start : start + count] = b"0" * count
    identity = hashlib.sha256(content).hexdigest().encode()
    content[start : start + count] = (identity * (count // len(identity) + 1))[:count]
    with write_aside(path) as aside:
        aside.write_bytes(content)


def operator_name(operator: Table) -> str:
    """Return the name of an operator's type, or its number where this version does not know it."""
    number = operator.integer(OP_TYPE)
    return _OPERATORS.get(number, f"operator {number}")
