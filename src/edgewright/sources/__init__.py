"""Read a trained model: `load` gives a Program, `inspect` describes it."""

from edgewright.sources.load import load, load_module

__all__ = ["load", "load_module"]
