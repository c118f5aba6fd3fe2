"""Specifications that are bombs, or contradict their model: `load` and the command refuse each in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from benchmarks.processing.hostile_cases import MAX_SENTENCE, Tally, watched
from benchmarks.processing.hostile_files import command

from edgewright.prediction import load

_EVERY = 4  # of these goes through the command, too: it starts in a second or more
_GOOD = """edgewright_processing = 1
task = "classification"
inputs = [{ name = "numbers", kind = "series", shape = [4] }]
tensors = [{ name = "x", from = ["numbers"] }]
results = [{ name = "best", from = ["y"], steps = [{ step = "top_k" }] }]
"""


def specifications(work: Path, tally: Tally) -> None:
    """Run all specifications around one model of four numbers."""
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", ends[:1], ends[1:])
    model = work / "m.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(model))
    np.save(work / "in.npy", np.arange(4, dtype=np.float32))
    (work / "labels.txt").write_text("a\nb\nc\nd\n")
    for kind, cases in (("bombs of TOML", _bombs()), ("contradictions", _contradictions())):
        for number, (name, text) in enumerate(cases.items()):
            (work / "processing.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
            with watched(tally, kind, name), load(model):
                if name.startswith("good"):
                    tally.add(kind, "right")
                else:
                    tally.add_bad(kind, f"{name} was taken")
            if number % _EVERY:
                continue
            code, _, said = command("predict", model, work / "in.npy")
            is_short = len(said.strip()) <= MAX_SENTENCE + 200
            if code != (0 if name.startswith("good") else 2) or "Traceback" in said or not is_short:
                tally.add_bad("by the command", f"{name} ends with {code}: {said[-300:]!r}")
            else:
                tally.add("by the command", "refused" if code else "right")


def _bombs() -> Mapping[str, str | bytes]:
    def with_rows(row: str, count: int) -> str:
        return _GOOD + "\n".join([row] * count)

    return {
        "good": _GOOD,
        "good_marked": _GOOD + "# " + "\u9ce5" * 1000,
        "lists": "a = " + "[" * 50_000,
        "closed": "a = " + "[" * 300 + "]" * 300,
        "tables": "a = " + "{a=" * 20_000,
        "keys": ".".join("a" * 100_000) + " = 1",
        "key_in_table": _GOOD + "[inputs." + ".".join("b" * 50_000) + "]",
        "deep_value": _GOOD.replace('"top_k"', '"top_k", k = ' + "[" * 200 + "]" * 200),
        "text": f'{_GOOD}\nx = "{"a" * 1_000_000}"',
        "task": _GOOD.replace("classification", "c" * 500_000),
        "name": _GOOD.replace('"best"', '"' + "b" * 500_000 + '"'),
        "step": _GOOD.replace('"top_k"', '"' + "k" * 500_000 + '"'),
        "option": _GOOD.replace('"top_k"', '"top_k", ' + "k" * 500_000 + " = 1"),
        "digits": _GOOD.replace("= 1", "= " + "9" * 100_000),
        "hex": _GOOD.replace("[4]", "[0x" + "f" * 100_000 + "]"),
        "integer": _GOOD.replace("[4]", "[99999999999999999999]"),
        "number": _GOOD.replace('"top_k"', '"scale", factor = [1e400]'),
        "beyond": _GOOD.replace('"top_k"', '"scale", factor = [1e39]'),
        "nan": _GOOD.replace('"top_k"', '"scale", factor = [nan]'),
        "large": with_rows("#" * 1000, 1100),
        "rows": with_rows('[[values]]\nname = "v"\nfrom = ["numbers"]', 65),
        "steps": _GOOD.replace('{ step = "top_k" }', '{ step = "softmax" }, ' * 65 + '{ step = "top_k" }'),
        "shape": _GOOD.replace("[4]", "[" + "4, " * 100_000 + "]"),
        "sizes": _GOOD.replace("[4]", "[2147483647, 2147483647]"),
        "binary": bytes(range(256)) * 100,
        "zeros": bytes(10_000),
        "utf16": _GOOD.encode("utf-16"),
        "empty": "",
        "nul": _GOOD.replace("best", "be\\u0000st"),
        "date": _GOOD.replace("= 1", "= 2024-99-99"),
        "twice": _GOOD + _GOOD,
    }


def _contradictions() -> Mapping[str, str]:
    def changed(old: str, new: str) -> str:
        assert old in _GOOD
        return _GOOD.replace(old, new)

    top = '{ step = "top_k" }'
    return {
        "good_labels": changed('"best",', '"best", labels = "labels.txt",'),
        "version": changed("= 1", "= 2"),
        "no_version": changed("edgewright_processing = 1\n", ""),
        "other_input": changed('name = "x"', 'name = "z"'),
        "other_output": changed('["y"]', '["z"]'),
        "other_size": changed("[4]", "[5]"),
        "other_rank": changed("[4]", "[4, 1]"),
        "other_type": changed("[4]", '[4], dtype = "int8"'),
        "no_type": changed("[4]", '[4], dtype = "float64"'),
        "other_kind": changed('"series", shape = [4]', '"image"'),
        "no_kind": changed('"series"', '"smell"'),
        "nothing_fed": changed('tensors = [{ name = "x", from = ["numbers"] }]', "tensors = []"),
        "fed_twice": changed('["numbers"] }]', '["numbers"] }, { name = "x", from = ["numbers"] }]'),
        "constant_too": _GOOD + '[[constants]]\ntensor = "x"\nvalue = 1.0\n',
        "circle": _GOOD.replace('["numbers"]', '["v"]') + '[[values]]\nname = "v"\nfrom = ["y"]\n',
        "unused": _GOOD + '[[values]]\nname = "v"\nfrom = ["numbers"]\n',
        "models": _GOOD + '[[models]]\nname = "a"\nfile = "../../../etc/passwd"\n',
        "no_model": _GOOD + '[[models]]\nname = "a"\nfile = "b.onnx"\n',
        "no_step": changed('"top_k"', '"top_q"'),
        "no_option": changed('"top_k"', '"top_k", q = 1'),
        "other_option": changed('"top_k"', '"top_k", k = "five"'),
        "out_of_range": changed('"top_k"', '"top_k", k = 0'),
        "after_classes": changed(top, f'{top}, {{ step = "softmax" }}'),
        "boxes": changed(top, '{ step = "nms" }'),
        "to_source": changed(top, '{ step = "to_source" }'),
        "sound": changed(top, '{ step = "mel" }'),
        "tokens": changed('["numbers"]', '["numbers"], steps = [{ step = "tokenize" }]'),
        "labels_away": changed('"best",', '"best", labels = "../labels.txt",'),
        "labels_rooted": changed('"best",', '"best", labels = "/etc/passwd",'),
        "labels_missing": changed('"best",', '"best", labels = "none.txt",'),
        "labels_folder": changed('"best",', '"best", labels = "..",'),
        "labels_itself": changed('"best",', '"best", labels = "processing.toml",'),
        "labels_count": changed('"best",', '"best", labels = "in.npy",'),
        "clash": changed('"best"', '"numbers"'),
        "word": changed('"best"', '"best; rm -rf /"'),
        "quote": changed('"best"', "'\"}; system(\"x\"); //'"),
    }  # fmt: skip
