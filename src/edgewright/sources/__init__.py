"""Read a trained model: `load` gives a Program, `inspect` describes it."""

from edgewright.sources.inspection import Inspection, Layer
from edgewright.sources.load import inspect, inspect_artifact, load, load_module

__all__ = ["Inspection", "Layer", "inspect", "inspect_artifact", "load", "load_module"]
