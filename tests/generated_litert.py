"""Small `.tflite` files made by hand, with the maker of the conformance sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.microcontrollers.made_models import Maker


def made_model() -> Maker:
    """Return an empty model, which knows float16, too; needs ai_edge_litert."""
    from ai_edge_litert import schema_py_generated as schema
    from benchmarks.microcontrollers import made_models

    made_models.KINDS.setdefault("float16", (schema.TensorType.FLOAT16, np.float16))
    return made_models.Maker()


def rename(maker: Maker, index: int, name: str) -> None:
    """Give a tensor another name."""
    maker._graph.tensors[index].name = name.encode()
