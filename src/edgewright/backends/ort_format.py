"""A program of its own that writes an ONNX model in ORT format: `ort_format.py SOURCE PATH`.

ONNX Runtime writes one table of the file in the order of a hash map, and that order depends on addresses. In a fresh
process whose addresses are not random the same model gives the same bytes; where a sandbox forbids that (Docker's
default rules do), the file is as good, but its digest differs from one conversion to the next.

It imports nothing of Edgewright, so that it starts from any interpreter.
"""

from __future__ import annotations

import ctypes
import os
import sys

_FIXED = "--fixed-addresses"
_ADDR_NO_RANDOMIZE = 0x0040000  # of personality(2)
_ERRORS_ONLY = 3


def main(arguments: list[str]) -> None:
    """Write the model at the first argument to the second one."""
    if _FIXED not in arguments:
        if sys.platform == "linux":
            ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)
        os.execv(sys.executable, [sys.executable, "-I", __file__, *arguments, _FIXED])
    import onnxruntime as ort

    source, path = arguments[:2]
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.optimized_model_filepath = path
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ORT")
    # Integer kernels of signed activations, which phones have; x86 runs them as well, only slower.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    without = ["NchwcTransformer"]  # a layout of x86 only
    try:
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], disabled_optimizers=without)
    except Exception as err:  # ONNX Runtime raises classes of its own
        sys.exit(f"ONNX Runtime {ort.__version__}: {str(err).strip().splitlines()[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
