"""What a Keras configuration would run when it is loaded: Lambda layers, classes of others, functions by name.

Keras imports the module and takes the attribute that a configuration names, so that every name is compared with a
list of what Keras's own files hold. The lists are the public classes of keras 3.15 and tf-keras 2.21, less those that
run code of the user (Lambda, TFSMLayer, JaxLayer, FlaxLayer, TorchModuleWrapper) or read files (StringLookup,
IntegerLookup, TextVectorization).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgewright.core.errors import IntegrityError, UsageError

_MAX_DEPTH = 200
_LISTED = 8
_LAYERS = frozenset(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization BatchNormalizationV1
    BatchNormalizationV2 SyncBatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D
    Convolution2D Convolution3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Discretization
    Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell GRUV1 GRUV2 GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Identity InputLayer LSTM LSTMCell LSTMV1
    LSTMV2 LayerNormalization LeakyReLU LocallyConnected1D LocallyConnected2D Masking MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
    RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast
    RandomCrop RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
    RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram
    SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D SimpleRNN SimpleRNNCell Softmax
    Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract
    ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D Functional Sequential Model
    """.split()
)
_PARTS = frozenset(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT STFTInitializer TruncatedNormal VarianceScaling
    Zeros L1 L1L2 L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg RadialConstraint UnitNorm DTypePolicy
    FloatDTypePolicy DTypePolicyMap QuantizedDTypePolicy QuantizedFloat8DTypePolicy Policy TensorShape
    SeedGenerator __tuple__ __numpy__ __tensor__ __keras_tensor__ __dtype__ slice
    """.split()
)
_FUNCTIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax squareplus swish tanh tanh_shrink threshold
    """.split()
)
_MODULES = (
    "keras",
    "keras.layers",
    "keras.models",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.activations",
    "keras.dtype_policies",
    "keras.random",
    "builtins",
)
_SOURCE_MODULES = ("keras.src.models.", "keras.src.layers.", "keras.src.ops.", "keras.src.random.")
# Operators on tensors that Keras writes as layers; those that take a function as argument are left out.
_OPERATION_MODULES = ("keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.math", "keras.src.ops.image")
_CORE_OPERATIONS = frozenset(
    "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack".split()
)
_CALLING_OPERATIONS = frozenset({"Vectorize", "Operation", "MapCoordinates"})
# Keras 2 names functions of TensorFlow by their place in its public interface.
_TENSOR_SPACES = ("math", "nn", "linalg", "image", "signal", "bitwise", "__operators__")
_TENSOR_FUNCTIONS = frozenset(
    """
    add subtract multiply divide abs argmax argmin batch_to_space broadcast_to cast clip_by_value concat cos einsum
    equal exp expand_dims eye fill floor gather gather_nd greater greater_equal identity less less_equal logical_and
    logical_not logical_or matmul maximum minimum meshgrid negative norm not_equal one_hot ones ones_like pad pow range
    rank reduce_all reduce_any reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat reshape reverse roll
    round shape sigmoid sign sin size slice space_to_batch space_to_depth split sqrt square squeeze stack
    stop_gradient strided_slice tanh tensordot tile transpose truediv unstack where zeros zeros_like
    compat.v1.shape compat.v1.transpose compat.v1.squeeze compat.v1.gather
    """.split()
)


def unsafe_parts(config: Mapping[str, object]) -> list[str]:
    """Return what in `config` would run code that is not Keras's own, each once, in words."""
    found: dict[str, None] = {}
    # The losses and optimizers at the top are for training and are not loaded.
    stack: list[tuple[object, int]] = [
        (value, 0) for key, value in config.items() if key not in ("compile_config",) and value is not config
    ]
    _look(config, found)
    while stack:
        value, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise IntegrityError("the configuration is nested too deeply. Save the model again.")
        if isinstance(value, dict):
            _look(value, found)
            stack += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            stack += [(inner, depth + 1) for inner in value]
    return sorted(found)


def _look(record: Mapping[str, object], found: dict[str, None]) -> None:
    if "class_name" not in record:
        return
    name, module = record["class_name"], record.get("module")
    if name in ("Lambda", "__lambda__"):
        found[
            f"the Lambda layer {_name_of(record)!r} (Python code inside the file)"
            if name == "Lambda"
            else _CODE
        ] = None
    elif name == "function":
        if record.get("config") not in _FUNCTIONS or module not in (None, "builtins", *_MODULES):
            found[f"the function {str(module)[:80]}.{str(record.get('config'))[:80]}"] = None
    elif name in ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"):
        function = _function_of(record)
        if not _is_tensor_function(function):
            found[f"the TensorFlow function {function[:80]!r}"] = None
    elif not isinstance(name, str) or not _is_known(name, module) or _is_registered(record):
        package = record.get("registered_name") or module
        found[f"the class {str(name)[:80]}" + (f" of {str(package)[:80]}" if package else "")] = None


_CODE = "compiled Python code"


def _is_known(name: str, module: object) -> bool:
    if module in (None, *_MODULES):
        return name in _LAYERS or name in _PARTS
    if not isinstance(module, str):
        return False
    if module in _OPERATION_MODULES:
        return name.isidentifier() and name[:1].isupper() and name not in _CALLING_OPERATIONS
    if module == "keras.src.ops.core":
        return name in _CORE_OPERATIONS
    return module.startswith(_SOURCE_MODULES) and (name in _LAYERS or name in _PARTS)


def _is_registered(record: Mapping[str, object]) -> bool:
    registered = record.get("registered_name")
    return registered not in (None, record["class_name"]) and not str(registered).startswith("keras>")


def _name_of(record: Mapping[str, object]) -> str:
    config = record.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    return str(record.get("name") or inner or "without a name")[:80]


def _function_of(record: Mapping[str, object]) -> str:
    config = record.get("config")
    return str(config.get("function", "")) if isinstance(config, dict) else ""


def _is_tensor_function(name: str) -> bool:
    space, dot, _ = name.partition(".")
    return name in _TENSOR_FUNCTIONS or (bool(dot) and space in _TENSOR_SPACES)


def require_safe(path: Path, config: Mapping[str, object], *, is_trusted: bool) -> tuple[str, ...]:
    """Return notes on the code that is in the file.

    Raises:
        UsageError: there is some, and the file is not trusted; every part is named.
    """
    parts = unsafe_parts(config)
    if not parts:
        return ()
    listed = "; ".join(parts[:_LISTED]) + (
        f"; and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
    )
    if not is_trusted:
        raise UsageError(
            f"{path} would run code when it is loaded: {listed}. It is not loaded. Rebuild the model with Keras's own "
            "layers, or give --trust if you know where it comes from."
        )
    return (f"it runs code when it is loaded: {listed}",)
