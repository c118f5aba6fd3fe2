"""Static int8 quantization of weights and activations by NNCF, on request with control of the outputs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends import vendor
from edgewright.backends.openvino_errors import reason_of
from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    import nncf
    import openvino

# What the control allows: of the share of samples whose top-1 stays what it was, or of the mean closeness of outputs.
MAX_AGREEMENT_DROP = 0.01
MAX_CLOSENESS_DROP = 0.05
_RANKED_SAMPLES = 64
_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")

Row = Sequence[Array]


def quantize(
    model: openvino.Model, samples: Sequence[Row], *, is_controlled: bool
) -> tuple[openvino.Model, list[str]]:
    """Return the int8 model and notes on how it was made.

    With control, layers go back to float32, the most harmful first, until the outputs on the calibration samples agree
    with the float model's own: the same top-1 on all but 1 % of the samples for one output of classes, else a mean
    closeness 1 - |got - want| / |want| of at least 95 %. No label is needed, and none is used.

    Args:
        samples: calibration, each a full set of inputs in order.
    Raises:
        ConversionError: NNCF refuses the model.
    """
    with vendor.quiet():
        import nncf

        nncf.set_log_level(logging.ERROR)
        try:
            if is_controlled:
                return _controlled(model, samples)
            made = nncf.quantize(
                model,
                nncf.Dataset([_fed(row) for row in samples]),
                preset=_preset(),
                subset_size=len(samples),
                fast_bias_correction=True,
                advanced_parameters=_ranges(),
            )
        except Exception as err:  # nncf has its own classes, and passes on OpenVINO's
            raise ConversionError(
                f"NNCF cannot quantize the model: {reason_of(err)}. Leave this precision out."
            ) from err
        return made, ["quantized by NNCF: symmetric weights, fast bias correction"]


def _preset() -> nncf.QuantizationPreset:
    import nncf

    # Mixed: activations with a zero point where they are not centred, as after anything but ReLU.
    return nncf.QuantizationPreset.MIXED


def _ranges() -> nncf.AdvancedQuantizationParameters:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    # The default takes the mean of each sample's extremes, which clips half of the samples.
    return nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
    )


def _fed(row: Row) -> Array | tuple[Array, ...]:
    return tuple(row) if len(row) > 1 else row[0]


class _Agreement:
    """How far a model gives the outputs of the float model, sample by sample, in 0..1."""

    def __init__(self, model: openvino.Model, samples: Sequence[Row]) -> None:
        import openvino

        config = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(model, "CPU", config)
        self._wanted = [_outputs(compiled, row) for row in samples]
        first = self._wanted[0]
        self.is_class = len(first) == 1 and first[0].ndim == 2 and first[0].shape[1] > 1
        self.last = 0.0

    @property
    def max_drop(self) -> float:
        """What the control allows."""
        return MAX_AGREEMENT_DROP if self.is_class else MAX_CLOSENESS_DROP

    def __call__(
        self, compiled: openvino.CompiledModel, items: Iterable[tuple[int, Row]]
    ) -> tuple[float, list[float]]:
        """Return the mean and each sample's score, as NNCF asks for them."""
        scores = [self._score(self._wanted[place], _outputs(compiled, row)) for place, row in items]
        self.last = float(np.mean(scores))
        return self.last, scores

    def _score(self, wanted: list[Array], got: list[Array]) -> float:
        if self.is_class:
            return float(np.mean(wanted[0].argmax(axis=1) == got[0].argmax(axis=1)))
        want, have = (
            np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])
            for parts in (wanted, got)
        )
        size = float(np.linalg.norm(want))
        return 1.0 - min(1.0, float(np.linalg.norm(have - want)) / size) if size else 1.0


def _outputs(compiled: openvino.CompiledModel, row: Row) -> list[Array]:
    results = compiled(list(row))
    return [np.array(results[port]) for port in compiled.outputs]


def _controlled(model: openvino.Model, samples: Sequence[Row]) -> tuple[openvino.Model, list[str]]:
    import nncf

    score = _Agreement(model, samples)
    items = list(enumerate(samples))

    def fed(item: tuple[int, Row]) -> Array | tuple[Array, ...]:
        return _fed(item[1])

    made = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(items, fed),
        nncf.Dataset(items, fed),
        validation_fn=score,
        max_drop=score.max_drop,
        drop_type=nncf.DropType.ABSOLUTE,
        preset=_preset(),
        subset_size=len(samples),
        fast_bias_correction=True,
        advanced_quantization_parameters=_ranges(),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=min(_RANKED_SAMPLES, len(samples))
        ),
    )
    import openvino

    final, _ = score(openvino.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), items)
    layers, left = _layers(made)
    measure = (
        "top-1 agreement with the float model" if score.is_class else "mean closeness to the float outputs"
    )
    note = (
        f"quantized by NNCF with control: {left} of {layers} layers stay in float32; {measure} is {final:.2%} on the "
        f"{len(samples)} calibration samples, at least {1 - score.max_drop:.0%} was asked for"
    )
    if final < 1 - score.max_drop:
        note += ", which NNCF did not reach"
    return made, [note]


def _layers(model: openvino.Model) -> tuple[int, int]:
    """Return how many convolutions and linear layers with weights there are, and how many of them are in float."""
    layers = left = 0
    for node in model.get_ops():
        if node.get_type_name() not in _LAYERS:
            continue
        weights = node.input_value(1).get_node()
        is_float = weights.get_type_name() == "Constant"
        is_weighted = is_float or weights.get_type_name() in (
            "Multiply",
            "Reshape",
            "Transpose",
            "Convert",
            "FakeQuantize",
        )
        layers += is_weighted
        left += is_float
    return layers, left
