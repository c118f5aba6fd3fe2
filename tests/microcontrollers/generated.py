"""The benchmark's maker of small `.tflite` files, for tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "microcontrollers"))
try:
    from made_kinds import KINDS
    from made_models import Maker
finally:
    sys.path.pop(0)

__all__ = ["KINDS", "Maker"]
