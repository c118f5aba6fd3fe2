"""The names of the passes, where they are, and one line on each: `edgewright --help` reads this and imports no pass."""

from __future__ import annotations

PASSES = {
    "prune": "edgewright.compress.pruning:PASS",
    "sparsify": "edgewright.compress.sparsifying:PASS",
    "distill": "edgewright.compress.distilling:PASS",
    "qat": "edgewright.compress.qat:PASS",
    "repair": "edgewright.compress.repairing:PASS",
    "cluster": "edgewright.compress.clustering:PASS",
    "entropy": "edgewright.compress.entropy:PASS",
}

SUMMARIES = {
    "prune": "Remove whole channels, heads and neurons.",
    "sparsify": "Set small weights to zero, one by one or N of M.",
    "distill": "Train the model to answer as a teacher does.",
    "qat": "Train with quantization, to int8 or int4 weights.",
    "repair": "Win back what quantization lost, without training.",
    "cluster": "Let weights share a few values per layer.",
    "entropy": "Pack each runtime's artifact for the download.",
}
