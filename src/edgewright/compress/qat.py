"""Training with quantization: the network learns weights that lose little when they are rounded.

Batch normalisation is folded into the layers before the training starts, so that what is trained is what is exported:
a normalisation that is folded afterwards would scale weights that were rounded at another scale.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.backends.vendor import load_exported, quiet
from edgewright.compress.checkpoints import Checkpoints, ResumableFit
from edgewright.compress.int8_quantizer import count_weighted, make_quantizer, schemes
from edgewright.compress.module import FILE_NAME
from edgewright.compress.passes import Bench, Compressed, Fit
from edgewright.compress.quantize import dynamic_shapes
from edgewright.core.errors import (
    ConversionError,
    DataError,
    FormatMismatchError,
    UnknownNameError,
    UsageError,
    first_line,
)
from edgewright.core.program import Program
from edgewright.core.target import Precision
from edgewright.sources.torch_digest import digest_exported
from edgewright.sources.torch_export import export_module, flat_tensors, repeat_batch, save_exported

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from edgewright.compress.passes import Batch, Train

PRECISIONS = (str(Precision.W8A8), str(Precision.W4A8))
STAGE = "qat"
# By how much the export may differ, as a share of the largest value: a few activations that round to the next step.
_LARGEST_SHARE = 5e-2
_DROPOUTS = ("aten.dropout.default", "aten.dropout_.default")


@dataclass(frozen=True, kw_only=True)
class QatOptions:
    """How to train with quantization.

    Attributes:
        precision: "w8a8", or "w4a8" with weights of 15 values.
        epochs: of training; 0 only calibrates.
        keep_zeros: weights that are 0 stay 0, as pruning left them.
    """

    precision: Literal["w8a8", "w4a8"] = "w8a8"
    epochs: int = 1
    keep_zeros: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError.of("precision of qat", self.precision, PRECISIONS)
        if self.epochs < 0:
            raise UsageError(f"got {self.epochs} epochs; 0 or more are expected.")


class QatPass:
    """Training with quantization, as recipes name it."""

    name = "qat"
    summary = "Train with quantization, to int8 or int4 weights."
    precisions = ("fp32",)
    Options = QatOptions

    def run(self, program: Program, options: QatOptions, bench: Bench) -> Compressed:
        """Return `program` trained and quantized; every runtime with int8 kernels builds it without calibration.

        Raises:
            FormatMismatchError: not a `.pt2` in fp32.
            DataError: no calibration samples, or they do not fit.
            ConversionError: no layer can be quantized.
            TrainingError: training failed.
        """
        if program.format != "pt2" or program.precision not in self.precisions:
            raise FormatMismatchError(
                f"qat trains float PyTorch programs, but {program.path.name} is {program.format} in "
                f"{program.precision}. Put it before the passes that quantize."
            )
        bench.report("calibrating", None)
        prepared = prepare(program, bench.calibration, options)
        layers = count_weighted(prepared)
        bench.fit(STAGE, prepared, options.epochs)
        exported = finish(prepared, program, bench.calibration[0])
        path = save_exported(exported, bench.folder / FILE_NAME)
        made = replace(
            program,
            path=path,
            sha256=digest_exported(exported),
            precision=options.precision,
            history=(*program.history, f"qat({options.precision}, {options.epochs} epochs)"),
        )
        facts: dict[str, float | int | str] = {
            "precision": options.precision,
            "epochs": options.epochs,
            "quantized layers": layers,
        }
        return Compressed(program=made, facts=facts, tables={})


PASS = QatPass()


def quantize_aware(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor],
    *,
    calibration: Sequence[Batch],
    train: Train | None = None,
    epochs: int = 1,
    precision: Literal["w8a8", "w4a8"] = "w8a8",
    keep_zeros: bool = True,
    checkpoints: Path | None = None,
    seed: int = 0,
) -> ExportedProgram:
    """Return `module` trained with quantization; saved as `.pt2`, every runtime builds it without calibration.

    `train` gets a module that quantizes in every pass. `module` itself is not changed.

    Args:
        example_inputs: the tensors of one call, batch axis first.
        calibration: batches of real training inputs, for the ranges to start from.
        train: trains a module in place for a number of epochs; with 0 epochs it is not needed.
        checkpoints: folder in which the trained weights are kept, so that a killed training goes on.
    Raises:
        UsageError: an option is out of range, or the examples do not fit `module`.
        DataError: no calibration, or it does not fit.
        ConversionError: no layer can be quantized, or torch.export refuses the module.
        TrainingError: the training failed or left NaN.
    """
    options = QatOptions(precision=precision, epochs=epochs, keep_zeros=keep_zeros)
    fit: Fit = ResumableFit(train, None if checkpoints is None else Checkpoints(checkpoints), seed=seed)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        program = export_module(module, example_inputs, workdir=Path(folder), origin=type(module).__name__)
        prepared = prepare(program, calibration, options)
    fit(STAGE, prepared, epochs)
    return finish(prepared, program, example_inputs)


def prepare(program: Program, calibration: Sequence[Batch], options: QatOptions) -> GraphModule:
    """Return the model of `program` with fake quantization, calibrated, in evaluation mode.

    It takes tensors by position; train() and eval() switch dropout and the ranges. Batch normalisation that cannot be
    folded keeps its statistics.

    Raises:
        DataError: no calibration, or it does not fit.
        ConversionError: no layer can be quantized.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    if not calibration:
        raise DataError(
            "training with quantization needs calibration samples for its first ranges; got none."
        )
    chosen = schemes(is_trained=True)
    if options.precision == "w4a8":
        chosen = replace(chosen, weight=chosen.weight4)
    with quiet():
        exported = load_exported(program)
        try:
            prepared: GraphModule = prepare_pt2e(exported.module(check_guards=False), make_quantizer(chosen))
        except Exception as err:
            raise ConversionError(
                f"PT2E failed on {program.origin}: {type(err).__name__}: {first_line(err)}."
            ) from err
    if count_weighted(prepared) == 0:
        raise ConversionError(
            f"{program.origin} has no convolution or linear layer on float32 that can be quantized."
        )
    _set_dropout(prepared)
    _allow_modes(prepared)
    for parameter in prepared.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    prepared.eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would give other ranges
    try:
        with torch.no_grad():
            for batch in calibration:
                prepared(*batch)
    except Exception as err:
        shapes = [list(tensor.shape) for tensor in calibration[0]]
        raise DataError(
            f"{program.origin} does not take the calibration samples {shapes}: {first_line(err)}."
        ) from err
    finally:
        torch.set_num_threads(threads)
    _settle(prepared, keep_zeros=options.keep_zeros)
    return prepared


def finish(prepared: GraphModule, program: Program, example: Sequence[torch.Tensor]) -> ExportedProgram:
    """Return the trained `prepared` as a PT2E program, with its very ranges and rounding.

    Args:
        program: what it was made of: the signature.
        example: the tensors of one call, batch axis first.
    Raises:
        ConversionError: torchao or torch.export refuses it.
    """
    import torch
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    pair = tuple(
        repeat_batch(tensor.detach().cpu(), 2) if spec.has_dynamic_batch else tensor.detach().cpu()
        for spec, tensor in zip(program.inputs, example, strict=True)
    )
    prepared.cpu().eval()
    with torch.no_grad():
        _apply_masks(prepared)
        # The steps of the weights follow their last change.
        expected = flat_tensors(prepared(*pair))
    _set_dropout(prepared, is_layer=False)
    try:
        with quiet(), torch.no_grad():
            converted = convert_pt2e(prepared, fold_quantize=False)
            if any("batch_norm" in str(node.target) for node in converted.graph.nodes):
                move_exported_model_to_eval(
                    converted
                )  # takes longer than all the rest: only for those not folded
            exported = torch.export.export(converted, pair, dynamic_shapes=dynamic_shapes(program.inputs))
            got = flat_tensors(exported.module()(*pair))
    except Exception as err:
        raise ConversionError(
            f"PT2E failed on the trained {program.origin}: {type(err).__name__}: {first_line(err)}."
        ) from err
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        limit = _LARGEST_SHARE * float(want.abs().max()) if want.numel() else 0.0
        if not torch.allclose(have.double(), want.double(), rtol=0.0, atol=limit):
            raise ConversionError(
                f"output {index} of the exported {program.origin} is not that of the trained network, which it "
                f"should equal to {limit:.3g}. It is not converted."
            )
    return exported


def _settle(prepared: GraphModule, *, keep_zeros: bool) -> None:
    from edgewright.compress.qat_modules import ActivationFakeQuantize, PerChannelWeightFakeQuantize

    places = Counter(str(node.target) for node in prepared.graph.nodes if node.op == "call_module")
    for name, layer in prepared.named_modules():
        if isinstance(layer, ActivationFakeQuantize):
            layer.settle(places=places[name])
            if not bool((layer.low + layer.high).isfinite()):
                raise DataError("the network gives NaN or infinity for the calibration samples. Check both.")
    for layer, weight in _weights(prepared):
        assert isinstance(layer, PerChannelWeightFakeQuantize)
        layer.settle(weight, keep_zeros=keep_zeros)


def _apply_masks(prepared: GraphModule) -> None:
    from edgewright.compress.qat_modules import PerChannelWeightFakeQuantize

    for layer, weight in _weights(prepared):
        assert isinstance(layer, PerChannelWeightFakeQuantize)
        if layer.mask is not None:
            weight.mul_(layer.mask)


def _weights(prepared: GraphModule) -> list[tuple[torch.nn.Module, torch.Tensor]]:
    """Return the fake quantization of each weight, and the weight."""
    from edgewright.compress.qat_modules import PerChannelWeightFakeQuantize

    found: list[tuple[torch.nn.Module, torch.Tensor]] = []
    for node in prepared.graph.nodes:
        layer = prepared.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, PerChannelWeightFakeQuantize):
            path, _, name = str(node.args[0].target).rpartition(".")
            found.append((layer, getattr(prepared.get_submodule(path), name)))
    return found


def _set_dropout(prepared: GraphModule, *, is_layer: bool = True) -> None:
    """Make dropout operators, frozen by the export, layers that follow train() and eval(), or the reverse."""
    import torch

    for number, node in enumerate(list(prepared.graph.nodes)):
        if is_layer and str(node.target) in _DROPOUTS:
            name = f"dropout_layer_{number}"
            prepared.add_submodule(name, torch.nn.Dropout(node.args[1]))
            node.op, node.target, node.args = "call_module", name, (node.args[0],)
        elif not is_layer and node.op == "call_module" and str(node.target).startswith("dropout_layer_"):
            share = prepared.get_submodule(node.target).p
            node.op, node.target = "call_function", torch.ops.aten.dropout.default
            node.args = (node.args[0], share, False)
    prepared.delete_all_unused_submodules()
    prepared.recompile()


def _allow_modes(prepared: GraphModule) -> None:
    """Take back what torch.export forbids: nothing here but its own layers depends on the mode."""
    for name in ("train", "eval"):
        prepared.__dict__.pop(name, None)
