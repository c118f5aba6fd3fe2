"""ONNX's own operator tests through the runtimes: is every one right, or refused by name?

Runs the node tests and the simple models of the installed onnx wheel (operators up to opset 26) through the routes
from ONNX to each runtime, in workers, and compares with the expected outputs by the suite's own tolerances. A test is

  right     the outputs agree
  refused   an error of Edgewright's that says why
  caught    it was converted to something wrong, and the comparison that every build makes says so
  WRONG     the outputs differ, and that comparison would let them pass
  error     an exception that nobody translated
  crash     the worker died, hung or ran out of memory

The suite feeds shapes, axes and limits as inputs, which deployed models hold as constants. A test that is refused is
tried again with those held, and counted apart. Tests that need other domains (ai.onnx.ml, training) count in the
first score and not in the second.

    python benchmarks/onnx_conformance.py --backend litert --match '^node/test_conv' --state /tmp/litert.jsonl
"""

from __future__ import annotations

import json
import queue
import random
import re
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from onnx_conformance_test import MAX_OPSET, domains_of, model_of, operators_of, opset_of, tests
from reporting import conditions, parser_for, print_table, write_json

from edgewright.core.errors import EdgewrightError
from edgewright.workers import cache
from edgewright.workers.pool import Limits, Worker

BACKENDS = ("litert", "onnxruntime", "openvino")
LIMITS = Limits(timeout_s=180.0, memory_bytes=4 << 30)
CALLS_PER_PROCESS = 150  # a converter leaks a little in each call
VERDICTS = ("right", "refused", "caught", "WRONG", "error", "crash")
_SHOWN = 40
_SEED = 20261121


def main() -> int:
    """Return 0 when nothing was wrong, in error or crashed."""
    parser = parser_for(__doc__)
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="only this one; may be repeated")
    parser.add_argument("--match", default="", help="only tests whose kind/name this expression finds")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N of them")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes at a time (default: 1)"
    )
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="append each result to FILE, and go on where it ends"
    )
    parser.add_argument("--verbose", action="store_true", help="print every test that is not right")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N, drawn with a fixed seed")
    options = parser.parse_args()
    names = [name for name in sorted(tests()) if re.search(options.match, name)]
    models = {name: model_of(name) for name in names}
    newer = [name for name in names if opset_of(models[name]) > MAX_OPSET]
    names = [name for name in names if name not in set(newer)][: options.limit or None]
    if options.sample and options.sample < len(names):
        names = sorted(random.Random(_SEED).sample(names, options.sample))
    print(
        f"{len(names)} tests of opset {MAX_OPSET} or lower; {len(newer)} of newer opsets are left out",
        flush=True,
    )
    records: list[dict[str, object]] = []
    for backend in options.backend or BACKENDS:
        records += _run_all(backend, names, options.state, options.workers)
    for record in records:
        model = models[str(record["name"])]
        record["operators"] = operators_of(model)
        record["domains"] = domains_of(model)
    scores = _report(records, is_verbose=options.verbose)
    write_json(options.json, {"scores": scores, "conditions": conditions(), "left_out": len(newer)})
    bad = sum(record["verdict"] not in ("right", "refused", "caught") for record in records)
    return 0 if not bad else 1


def _run_all(backend: str, names: Sequence[str], state: Path | None, count: int) -> list[dict[str, object]]:
    code = cache.code_digest()
    done = _known(state, backend, code)
    results = {name: done[name] for name in names if name in done}
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        if name not in done:
            todo.put(name)
    lock = threading.Lock()

    def work(lane: int) -> None:
        with tempfile.TemporaryDirectory(prefix="edgewright-conformance-") as folder:
            worker: Worker | None = None
            calls = 0
            while True:
                try:
                    name = todo.get_nowait()
                except queue.Empty:
                    break
                if worker is None or calls >= CALLS_PER_PROCESS:
                    if worker is not None:
                        worker.close()
                    worker, calls = (
                        Worker(f"{backend} {lane}", limits=LIMITS, env={"OMP_NUM_THREADS": "1"}),
                        0,
                    )
                calls += 1
                record = {"name": name, "backend": backend, "code": code} | _call(
                    worker, name, backend, folder
                )
                with lock:
                    results[name] = record
                    if state is not None:
                        with state.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(record) + "\n")
                    if len(results) % 50 == 0 or len(results) == len(names):
                        counts = Counter(str(r["verdict"]) for r in results.values())
                        shown = ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])
                        print(f"{backend}: {len(results)}/{len(names)}: {shown}", flush=True)
            if worker is not None:
                worker.close()

    lanes = [threading.Thread(target=work, args=(lane,)) for lane in range(max(count, 1))]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    return [results[name] for name in names]


def _call(worker: Worker, name: str, backend: str, folder: str) -> dict[str, object]:
    try:
        return worker.call(
            "onnx_conformance_test:run", {"name": name, "backend": backend, "workdir": f"{folder}/test"}
        )
    except EdgewrightError as err:
        return {
            "verdict": "crash",
            "reason": f"{type(err).__name__}: {err}"[:600],
            "operands": False,
            "seconds": 0.0,
        }


def _known(state: Path | None, backend: str, code: str) -> dict[str, dict[str, object]]:
    """Return the results in `state` that this very code made."""
    if state is None or not state.is_file():
        return {}
    records = [
        json.loads(line) for line in state.read_text(encoding="utf-8").splitlines() if line.endswith("}")
    ]
    return {r["name"]: r for r in records if r["backend"] == backend and r["code"] == code}


def _report(records: Sequence[dict[str, object]], *, is_verbose: bool) -> list[dict[str, object]]:
    scores = []
    for backend in dict.fromkeys(str(record["backend"]) for record in records):
        own = [record for record in records if record["backend"] == backend]
        for title, chosen in (
            ("all", own),
            ("standard operators", [record for record in own if not record["domains"]]),
        ):
            counts = Counter(str(record["verdict"]) for record in chosen)
            held = sum(record["verdict"] == "right" and bool(record["operands"]) for record in chosen)
            scores.append(
                {"backend": backend, "tests": title, "total": len(chosen), "right_with_operands_held": held}
                | {verdict: counts[verdict] for verdict in VERDICTS}
                | {"right_percent": round(100 * counts["right"] / max(len(chosen), 1), 2)}
            )
    print()
    print_table(
        ["backend", "tests", "total", *VERDICTS, "of right, operands held", "right %"],
        [
            [
                s["backend"],
                s["tests"],
                s["total"],
                *(s[v] for v in VERDICTS),
                s["right_with_operands_held"],
                s["right_percent"],
            ]
            for s in scores
        ],
    )
    for backend in dict.fromkeys(str(record["backend"]) for record in records):
        blocked: defaultdict[str, list[str]] = defaultdict(list)
        for record in records:
            if record["backend"] == backend and record["verdict"] != "right":
                reason = re.sub(r"'[^']*'|\"[^\"]*\"|/\S+|\d+", "_", str(record["reason"]))[:140]
                blocked[f"{record['verdict']}: {reason}"].append(str(record["name"]))
                if is_verbose:
                    print(f"{record['verdict']}  {record['name']}  {str(record['reason'])[:300]}")
        print(f"\n{backend}: what is not right, by reason")
        for reason, tests_of in sorted(blocked.items(), key=lambda item: -len(item[1]))[:_SHOWN]:
            print(f"  {len(tests_of):4} {reason}  ({', '.join(tests_of[:2])})")
        operators = Counter(_operator(name) for names in blocked.values() for name in names)
        print(
            f"{backend}: blocking, by test family: "
            + ", ".join(f"{k} {n}" for k, n in operators.most_common(_SHOWN))
        )
    return scores


def _operator(name: str) -> str:
    """Return the family of a test: the first word of its name, which is the operator's."""
    return name.partition("/")[2].removeprefix("test_").partition("_")[0]


if __name__ == "__main__":
    sys.exit(main())
