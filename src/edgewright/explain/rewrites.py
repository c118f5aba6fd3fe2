"""For each blocker a rewrite: what to write in the model instead. These are advice; nothing here tried them."""

from __future__ import annotations

import re

from edgewright.explain.coverage import Verdict
from edgewright.explain.findings import Finding
from edgewright.explain.graph import Operation

# By the operator's bare name in lower case.
_REWRITES = {
    "adaptive_max_pool2d": "use max_pool2d with kernel and stride computed from the fixed input size",
    "adaptive_max_pool3d": "use max_pool3d with kernel and stride computed from the fixed input size",
    "attention": "write it as softmax(q @ k.T / sqrt(d) + mask) @ v",
    "bernoulli": "draw the random numbers outside of the model and feed them as an input",
    "cdist": "write it as sqrt((x**2).sum(-1)[:, None] - 2 * x @ y.T + (y**2).sum(-1))",
    "celu": "write it as max(0, x) + min(0, alpha * (exp(x / alpha) - 1))",
    "compress": "multiply by a 0/1 mask instead of dropping elements, so that the shape stays fixed",
    "cond": "compute both branches and choose with where()",
    "cumprod": "write it as exp(cumsum(log(x))) for positive x, or unroll the fixed length",
    "deform_conv2d": "use an ordinary convolution, or grid_sample with a precomputed grid",
    "deformconv": "use an ordinary convolution, or GridSample with a precomputed grid",
    "det": "write out the determinant for the fixed size, or compute it after the model",
    "fft": "multiply by constant cosine and sine matrices (a DFT is a matrix product)",
    "dft": "multiply by constant cosine and sine matrices (a DFT is a matrix product)",
    "fft_r2c": "multiply by constant cosine and sine matrices (a DFT is a matrix product)",
    "grid_sample": "gather the four neighbours and weigh them, or resize before the model",
    "grid_sampler": "gather the four neighbours and weigh them, or resize before the model",
    "gridsample": "gather the four neighbours and weigh them, or resize before the model",
    "gru": "unroll the fixed number of steps, with linear, sigmoid and tanh",
    "if": "export one branch, or compute both and choose with Where",
    "imagedecoder": "decode the image before the model",
    "inverse": "solve outside of the model, or write out the inverse for the fixed size",
    "lgamma": "precompute a table and gather from it, or compute it after the model",
    "loop": "unroll it: export with a fixed number of steps",
    "lstm": "unroll the fixed number of steps, with linear, sigmoid and tanh",
    "masked_select": "multiply by a 0/1 mask instead of dropping elements, so that the shape stays fixed",
    "maxroipool": "crop and resize outside of the model",
    "maxunpool": "use nearest-neighbour upsampling, or a transposed convolution",
    "melweightmatrix": "compute the matrix once and store it as a constant",
    "multinomial": "return the probabilities and draw outside of the model",
    "non_max_suppression": "end the model at boxes and scores, and suppress after it",
    "nonmaxsuppression": "end the model at boxes and scores, and suppress after it",
    "nonzero": "keep a 0/1 mask of fixed shape instead of a list of positions",
    "optionalgetelement": "pass the tensor itself instead of an optional",
    "optionalhaselement": "decide at export time whether the tensor is there",
    "randomnormal": "draw the random numbers outside of the model and feed them as an input",
    "randomuniform": "draw the random numbers outside of the model and feed them as an input",
    "regexfullmatch": "match the text before the model",
    "roialign": "crop and resize outside of the model, or use GridSample with a precomputed grid",
    "scan": "unroll it: export with a fixed number of steps",
    "sequenceconstruct": "concatenate or stack the tensors instead of keeping a sequence",
    "sort": "use topk with k equal to the length",
    "stft": "use a strided convolution with constant cosine and sine kernels",
    "stringconcat": "handle text before the model",
    "stringnormalizer": "handle text before the model",
    "stringsplit": "handle text before the model",
    "tfidfvectorizer": "compute the counts before the model and feed them as numbers",
    "unique": "use a fixed table of classes and a one-hot comparison, so that the shape stays fixed",
    "upsample_bicubic2d": "use bilinear interpolation",
    "while": "unroll it: export with a fixed number of steps",
    "while_loop": "unroll it: export with a fixed number of steps",
}


def rewrite_for(operation: Operation, finding: Finding) -> str:
    """Return what to write instead of `operation`: always something for a blocker, nothing where nobody knows."""
    if finding.verdict in (Verdict.OK, Verdict.UNKNOWN):
        return ""
    names = [name for name in (finding.cause, operation.operator) if name]
    for name in names:
        known = _REWRITES.get(_bare(name))
        if known is not None:
            return known
    reason = finding.reason
    if "string" in reason:
        return "map the text to numbers before the model"
    if operation.operator.startswith("custom.") or _is_foreign(operation.operator):
        return "export without the custom operator, or replace it by standard ones (its domain is a vendor's own)"
    match = re.search(r"kernel for (\w+)", reason)
    if match is not None:
        return f"cast its inputs from {match[1]} to float32 (or int32) before it, and the result back"
    if "rank of its input" in reason:
        return "export one branch of the If before it, or reshape its result to a fixed rank"
    if "one piece" in reason:
        return "leave the split out: it gives back its own input"
    if "negative" in reason:
        return "slice the tensor instead of padding it by a negative number"
    if "opset" in reason:
        return "export the model again with another opset (onnx.version_converter can move it)"
    if "float type" in reason:
        return "convert the tensors to one float32 type before it"
    if "dynamic" in reason or "depends on values" in reason:
        return "export with fixed sizes"
    if "weights are computed" in reason:
        return "store the weights as constants of the model"
    if finding.verdict is Verdict.FALLBACK:
        return ""
    return (
        f"write {_bare(names[0])} with supported operators, or end the model before it and compute it outside"
    )


def _bare(name: str) -> str:
    """Return the operator's name alone: aten.lstm.input -> lstm, ai.onnx.ml.Scaler -> scaler."""
    parts = name.split(".")
    bare = parts[1] if len(parts) == 3 and parts[0] not in ("ai", "com") else parts[-1]
    return bare.lower().removeprefix("_")


def _is_foreign(name: str) -> bool:
    return "." in name and not name.startswith(("aten.", "quantized_decomposed.", "control.", "prims."))
