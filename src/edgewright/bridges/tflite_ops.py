"""The registry of LiteRT operators: a handler takes a builder and one operation, and writes ONNX nodes."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

from edgewright.bridges.tflite_builder import Builder, UnsupportedError
from edgewright.bridges.tflite_model import Operation
from edgewright.core.errors import ConversionError, IntegrityError, first_line

Handler = Callable[[Builder, Operation], None]

_MAX_REASONS = 40
_HANDLERS: dict[str, Handler] = {}


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Register the handler of the operators `names`."""

    def register(handler: Handler) -> Handler:
        for name in names:
            assert name not in _HANDLERS, f"{name} has two handlers"
            _HANDLERS[name] = handler
        return handler

    return register


@cache
def handlers() -> Mapping[str, Handler]:
    """Return operator name -> handler."""
    package = import_module("edgewright.bridges")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("tflite_ops_"):
            import_module(f"edgewright.bridges.{module.name}")
    return dict(_HANDLERS)


def write_operations(builder: Builder, name: str) -> None:
    """Let the handlers write every operation of the builder's model that is not worked out already.

    Raises:
        ConversionError: some cannot be written; all are named.
    """
    reasons: list[str] = []
    for position, operation in enumerate(builder.model.operations):
        if all(builder.model.tensors[index].value is not None for index in operation.outputs):
            continue
        try:
            handlers()[operation.name](builder, operation)
        except UnsupportedError as err:
            reason = f"{operation.name} ({err})"
            if "made by an operator that is not supported" not in str(err) and reason not in reasons:
                reasons.append(reason)
        except (LookupError, ValueError, TypeError, ArithmeticError, AssertionError) as err:
            # What no handler expects of a sane file: ranks, lists or types that do not fit the operator.
            raise IntegrityError(
                f"{name}: {operation.name} number {position} has inputs or options that do not fit it "
                f"({type(err).__name__}: {first_line(err)})."
            ) from err
    if reasons:
        more = f" and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
        raise ConversionError(
            f"{name} cannot become ONNX: {'; '.join(reasons[:_MAX_REASONS])}{more}. "
            "Change these operators in the model, or choose LiteRT."
        )
