"""All bundles of real tasks: made, proven, and wrong when one byte or one step of the processing is.

For each platform and task:
    made       the project is written, and built and run as far as that can be done here (column "shown")
    golden     `bundle check` verifies its digests and its golden cases
    bytes      one byte changed in the model, in a golden file and in the C core: `bundle check` finds each
    change     the processing made wrong in one step, everything else as it was: the bundle's own self-test fails

A task whose model fits no runtime of a platform, and cannot be converted to one within tolerance, is left out there;
each platform must have four at least where all tasks are tried. Prints a table and HOLDS, or FAILS with what does not
hold. Compilers and browsers that are missing are said. With --keep the bundles stay. Times are not measured.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.deploy.tasks import TASKS, Sources, Task
from benchmarks.reporting import conditions, parser_for, print_table, write_json

from edgewright.core.errors import ConversionError, EdgewrightError, IntegrityError
from edgewright.deploy import registry
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.deploy.manifest import list_files
from edgewright.processing.processor import plan

LEAST_TASKS = 4
_PLACES = ("model", "golden")
# How self-tests speak of golden arrays that are not as they should be.
_DIFFERENCES = ("differ", "agrees in", "rows")


@dataclass
class Row:
    """One bundle.

    Attributes:
        wrong: claims that do not hold, as sentences.
        caught: what the self-test said of the changed processing; empty where it was not run here.
        left_out: why there is no model for the platform.
    """

    platform: str
    task: str
    runtime: str = ""
    files: int = 0
    proofs: tuple[str, ...] = ()
    sizes: tuple[dict[str, object], ...] = ()
    golden: str = ""
    flipped: tuple[str, ...] = ()
    change: str = ""
    caught: str = ""
    left_out: str = ""
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "platform": self.platform,
            "task": self.task,
            "runtime": self.runtime,
            "files": self.files,
            "proofs": list(self.proofs),
            "sizes": list(self.sizes),
            "golden": self.golden,
            "flipped_bytes_found_in": list(self.flipped),
            "change": self.change,
            "self_test_said": self.caught,
            "left_out": self.left_out,
            "wrong": self.wrong,
        }


def measure(task: Task, platform: str, runtime: str, sources: Sources, assets: Path, out: Path) -> Row:
    """Make the bundle of `task` for `platform` as `out`, and try what may be wrong with it.

    Args:
        runtime: one of the platform's; empty for all of them, the task's own first.
    """
    row = Row(platform=platform, task=task.name)
    try:
        runtimes = (runtime,) if runtime else registry.platform(platform).runtimes
        source, row.runtime = sources.find(task, runtimes)
    except ConversionError as err:
        row.left_out = str(err)
        _say(row, f"left out: {err}")
        return row
    try:
        request = BundleRequest(
            source=source,
            platform=platform,
            name=task.name,
            samples=tuple(str(assets / sample) for sample in task.samples),
        )
        _say(row, f"make it for {row.runtime}")
        bundle = make_bundle(request, out)
    except EdgewrightError as err:
        _say(row, f"not made: {err}")
        row.wrong.append(f"not made: {err}")
        return row
    row.files = len(list_files(out))
    proofs = bundle.record["proofs"]
    assert isinstance(proofs, list)
    row.proofs = tuple(proofs)
    row.sizes = tuple(size.to_json() for size in bundle.written.sizes)
    _say(row, "check it")
    checked = check_bundle(out)
    row.golden = next((r.what for r in checked.rows if "golden" in r.what), "")
    row.wrong += [f"{r.what}: {problem}" for r in checked.rows for problem in r.problems]
    if not row.golden:
        row.wrong.append("its golden cases were not run")
    _say(row, "change bytes")
    row.flipped = tuple(flip_bytes(bundle, row))
    row.change = task.change_text
    _say(row, f"change its processing: {task.change_text}")
    row.caught = self_test_of_change(bundle, task, row)
    return row


def flip_bytes(bundle: Bundle, row: Row) -> list[str]:
    """Return the files in which a changed byte was found: a model's, a golden one, a source of the core."""
    places = [bundle.written.places[name] for name in _PLACES]
    names = list_files(bundle.folder)
    chosen = [next(name for name in names if name.startswith(f"{place}/")) for place in places]
    chosen.append(next(name for name in names if name.endswith("_processing.c")))
    found = []
    for name in chosen:
        file = bundle.folder / name
        right = file.read_bytes()
        changed = bytearray(right)
        changed[len(right) // 2] ^= 1
        file.write_bytes(changed)
        try:
            checked = check_bundle(bundle.folder)
        finally:
            file.write_bytes(right)
        said = [problem for r in checked.rows for problem in r.problems]
        if checked.exit_code == IntegrityError.exit_code and any(text.startswith(name) for text in said):
            found.append(name)
        else:
            row.wrong.append(f"a changed byte of {name} is not found")
    return found


def self_test_of_change(bundle: Bundle, task: Task, row: Row) -> str:
    """Return what the bundle's self-test says of a processing made wrong; empty where it is not run here."""
    content = bundle.content
    specification = task.change(content.plan.specification)
    content = replace(content, plan=plan(specification, content.plan.signatures))
    platform = registry.platform(row.platform)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        try:
            platform.write(content, Path(work))
            proofs = platform.prove(content, Path(work))
        except ConversionError as err:
            # A failure for another reason proves nothing.
            if not any(word in str(err) for word in _DIFFERENCES):
                row.wrong.append(f"with {task.change_text} its self-test speaks of no difference: {err}")
            return str(err)
    if not all(proof.startswith("not ") for proof in proofs):
        row.wrong.append(f"its self-test passes with {task.change_text}: {'; '.join(proofs)}")
    return ""


def _say(row: Row, what: str) -> None:
    print(f"{row.platform}, {row.task}: {what}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the bundles that the options choose; return the exit code."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--for", dest="platforms", metavar="PLATFORM", action="append", choices=registry.names()
    )
    parser.add_argument(
        "--task", dest="tasks", metavar="TASK", action="append", choices=[t.name for t in TASKS]
    )
    parser.add_argument(
        "--runtime", metavar="RUNTIME", default="", help="of the platform; default: any of its own"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for the bundles")
    options = parser.parse_args(arguments)
    platforms = options.platforms or registry.names()
    tasks = [task for task in TASKS if task.name in (options.tasks or [task.name])]
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        home = options.keep or Path(work) / "bundles"
        sources = Sources(options.assets, Path(work))
        rows = [
            measure(
                task, platform, options.runtime, sources, options.assets, home / f"{platform}-{task.name}"
            )
            for platform in platforms
            for task in tasks
        ]
    if options.tasks is None and not options.runtime:
        for platform in platforms:
            made = [row for row in rows if row.platform == platform and not row.left_out]
            if len(made) < LEAST_TASKS:
                made[0].wrong.append(f"{len(made)} tasks have a bundle; {LEAST_TASKS} are expected")
    _report(rows)
    holds = not any(row.wrong for row in rows)
    record = {"conditions": conditions(), "holds": holds, "bundles": [row.to_json() for row in rows]}
    write_json(options.json, record)
    return 0 if holds else 1


def _report(rows: Sequence[Row]) -> None:
    header = (
        "bundle",
        "runtime",
        "files",
        "model",
        "runtime",
        "core",
        "golden cases",
        "bytes found",
        "change found",
    )
    cells = []
    made = [row for row in rows if not row.left_out]
    for row in made:
        size = row.sizes[0] if row.sizes else {}
        counts = [size.get(f"{part}_bytes") for part in ("model", "runtime", "core")]
        texts = ["-" if count is None else f"{count:,}" for count in counts]
        caught = "yes" if row.caught else "not run here" if not row.wrong else "no"
        golden = row.golden.split()[0] if row.golden else "no"
        name = f"{row.platform} {row.task}"
        cells.append((name, row.runtime, row.files, *texts, golden, f"{len(row.flipped)} of 3", caught))
    print_table(header, cells)
    for row in made:
        print(f"\n{row.platform} {row.task}")
        for proof in row.proofs:
            print(f"  proof: {proof}")
        if row.caught:
            print(f"  {row.change}: {row.caught[:200]}")
    for row in rows:
        if row.left_out:
            print(f"\n{row.platform} {row.task}: left out: {row.left_out}")
    wrong = [f"{row.platform} {row.task}: {text}" for row in rows for text in row.wrong]
    print("\nHOLDS" if not wrong else "\nFAILS\n" + "\n".join(wrong))


if __name__ == "__main__":
    sys.exit(main())
