"""Bundles for Linux and C++ on an emulated arm64 board: installed offline, run, asked, and the same bits as here.

    install    install.sh in the board's root: a virtual environment, the wheels in the bundle, no index, no compiler
    golden     the bundle's own self-test on the board: the processing's tensors and the models' results
    service    started on the board; its health check there says ok, POST /predict answers
    bits       the C core's tensors and results on the board against those here: one digest each
    C++        the project cross-compiled with g++ for aarch64 against the runtime's library in the board's wheel,
               its golden cases on the board

Numbers are proven so, and nothing else: times under emulation say nothing of a board, and none is printed. Prints a
table and HOLDS, or FAILS. It needs root's rights (chroot), and for C++ with ONNX Runtime its headers: docs/bundles.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.deploy import core_digests
from benchmarks.deploy.board import CPU, Board
from benchmarks.deploy.tasks import TASKS, Sources, Task
from benchmarks.reporting import conditions, parser_for, print_table, write_json

from edgewright.bundle_tools import find_headers
from edgewright.core.errors import ConversionError, EdgewrightError, UnavailableError
from edgewright.deploy import linux
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.names import snake_case

_DEFAULT = ("Objects", "Keywords", "Faces", "Voice", "Denoiser")
_PORT = 18765
_MACHINE = "aarch64"


@dataclass
class Row:
    """What was shown of one task; `wrong` holds what does not hold, `skipped` what was not tried."""

    task: str
    runtime: str = ""
    installed: str = ""
    golden: str = ""
    service: str = ""
    same_bits: str = ""
    built: str = ""
    wrong: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def measure(task: Task, board: Board, sources: Sources, assets: Path, work: Path) -> Row:
    """Make the bundle of `task`, and try it on the board."""
    row = Row(task=task.name)
    try:
        source, row.runtime = sources.find(task, linux.PLATFORM.runtimes)
        _say(row, "make the bundle, with wheels for the board")
        request = BundleRequest(
            source=source,
            platform="linux",
            name=task.name,
            samples=tuple(str(assets / sample) for sample in task.samples),
            options=(f"wheels={_MACHINE}",),
        )
        bundle = make_bundle(request, work / task.name)
        _install(task, bundle, board, row)
        _serve(task, bundle, board, row)
        _compare_bits(task, bundle, board, row)
        _cross_compile(task, bundle, board, row, work / f"{task.name}-build")
    except EdgewrightError as err:
        row.wrong.append(str(err))
    return row


def _install(task: Task, bundle: Bundle, board: Board, row: Row) -> None:
    package = snake_case(task.name)
    inside = f"/srv/{package}"
    shutil.copytree(bundle.folder, board.place(inside))
    _say(row, "install.sh on the board (minutes, as pip is emulated)")
    # Files of bytecode would be made one by one under emulation.
    said = board.run(
        [f"{inside}/install.sh", f"/opt/{package}"], f"install {task.name}", env={"PIP_NO_COMPILE": "1"}
    ).splitlines()
    row.installed = next(line for line in said if line.startswith("installed in"))
    row.golden = next(line for line in said if line.startswith("ok: all golden cases"))
    # What was installed is run from now on, not what it was made of.
    shutil.rmtree(board.place(inside))


def _python(task: Task, *arguments: str) -> list[str]:
    return [f"/opt/{snake_case(task.name)}/venv/bin/python", *arguments]


def _serve(task: Task, bundle: Bundle, board: Board, row: Row) -> None:
    """Start the service on the board; ask it on the board whether it is well, and from here for a prediction."""
    package = snake_case(task.name)
    _say(row, "service on the board")
    command = board.command(_python(task, "-m", f"{package}.service", "--port", str(_PORT)))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            health = board.run(
                _python(task, "-m", f"{package}.health", "--port", str(_PORT), "--wait", "300"),
                "say its health",
            )
            if json.loads(health)["status"] != "ok":
                raise ConversionError(f"the service is not well: {health[:400]}")
            # Outside of the emulator, but through the board's service.
            body = linux.request_body(bundle.content)
            url = f"http://127.0.0.1:{_PORT}/predict"
            with urllib.request.urlopen(url, data=body, timeout=300) as answer:
                record = json.loads(answer.read())
        finally:
            process.terminate()
    row.service = f"health ok, /predict gave {', '.join(sorted(record))}"


def _compare_bits(task: Task, bundle: Bundle, board: Board, row: Row) -> None:
    package = snake_case(task.name)
    _say(row, "digests of the core's arrays")
    script = Path(core_digests.__file__)
    shutil.copy(script, board.place("/srv/core_digests.py"))
    there = json.loads(board.run(_python(task, "/srv/core_digests.py", package), "print digests"))
    env = {**os.environ, "PYTHONPATH": str(bundle.folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), package], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConversionError(f"digests of {task.name} cannot be made here: {done.stderr[-600:]}")
    here = json.loads(done.stdout)
    different = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if different:
        row.wrong.append(f"other bits than on {os.uname().machine}: {', '.join(different)}")
    row.same_bits = f"{len(here) - len(different)} of {len(here)}"


def _cross_compile(task: Task, bundle: Bundle, board: Board, row: Row, build: Path) -> None:
    """Build the C++ project for the board against the library of the board's wheel, and run its golden cases there."""
    compiler = f"{_MACHINE}-linux-gnu-g++"
    missing = [tool for tool in (compiler, "cmake") if shutil.which(tool) is None]
    if row.runtime == "onnxruntime" and find_headers() is None:
        missing.append("the headers of ONNX Runtime")
    if missing:
        row.skipped.append(f"C++: {', '.join(missing)} missing here")
        return
    _say(row, "cross-compile the C++ project")
    package = snake_case(task.name)
    home = board.place(f"/opt/{package}-cpp")
    home.mkdir()
    wheel, flags = _unpack_runtime(row.runtime, bundle.folder / "wheels", home)
    flags += [
        "-DCMAKE_SYSTEM_NAME=Linux",
        f"-DCMAKE_SYSTEM_PROCESSOR={_MACHINE}",
        f"-DCMAKE_C_COMPILER={_MACHINE}-linux-gnu-gcc",
        f"-DCMAKE_CXX_COMPILER={compiler}",
    ]
    _tool(["cmake", "-S", str(bundle.folder / "cpp"), "-B", str(build), *flags])
    _tool(["cmake", "--build", str(build), "--parallel", "2", "--target", f"{package}_selftest"])
    shutil.copy(build / f"{package}_selftest", home / "selftest")
    shutil.copytree(bundle.folder / "src" / package / "data", home / "data")
    inside = f"/opt/{package}-cpp"
    said = board.run(
        [*board.emulated(f"{inside}/selftest"), f"{inside}/data"],
        f"pass the golden cases of {task.name} in C++",
        env={"LD_LIBRARY_PATH": inside},
    )
    version = _tool([compiler, "--version"]).splitlines()[0]
    row.built = f"{said.strip()} ({version}, {wheel})"


def _unpack_runtime(runtime: str, wheels: Path, home: Path) -> tuple[str, list[str]]:
    """Put the runtime's library of the board's wheel into `home`; return the wheel's name and what CMake is told."""
    package, start = (
        ("ai_edge_litert", "libLiteRt.so") if runtime == "litert" else (runtime, "libonnxruntime.so.")
    )
    (wheel,) = wheels.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = next(n for n in archive.namelist() if Path(n).name.startswith(start))
        library = home / ("libLiteRt.so" if runtime == "litert" else "libonnxruntime.so.1")
        library.write_bytes(archive.read(inside))
    if runtime == "litert":
        return wheel.name, [f"-DLITERT_LIBRARY={library}"]
    return wheel.name, [f"-DONNXRUNTIME_INCLUDE={find_headers()}", f"-DONNXRUNTIME_LIBRARY={library}"]


def _tool(command: Sequence[str]) -> str:
    done = subprocess.run(
        list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConversionError(f"{command[0]} fails: {(done.stdout + done.stderr).strip()[-1200:]}")
    return done.stdout


def _say(row: Row, what: str) -> None:
    print(f"{row.task}: {what}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the tasks that the options choose; return the exit code."""
    parser = parser_for(__doc__)
    names = [task.name for task in TASKS]
    parser.add_argument(
        "--task", dest="tasks", metavar="TASK", action="append", choices=names,
        help=f"{', '.join(names)}; again for more (default: {', '.join(_DEFAULT)})",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    tasks = [task for task in TASKS if task.name in (options.tasks or _DEFAULT)]
    with tempfile.TemporaryDirectory(prefix="edgewright-") as text:
        work = Path(text)
        print("the board: a Debian root for arm64", file=sys.stderr, flush=True)
        try:
            board = Board(work / "board")
        except UnavailableError as err:
            print(f"not run here: {err}")
            return err.exit_code
        sources = Sources(options.assets, work)
        rows = [measure(task, board, sources, options.assets, work) for task in tasks]
    _report(rows)
    holds = not any(row.wrong for row in rows)
    record = {"conditions": conditions(), "cpu": CPU, "holds": holds, "tasks": [asdict(row) for row in rows]}
    write_json(options.json, record)
    return 0 if holds else 1


def _report(rows: Sequence[Row]) -> None:
    cells = [
        (row.task, row.runtime, "yes" if row.installed else "no", "passed" if row.golden else "no",
         "ok" if row.service else "no", row.same_bits or "-", "passed" if row.built else "-")
        for row in rows
    ]  # fmt: skip
    header = (
        "bundle",
        "runtime",
        "installed",
        "golden",
        "service",
        "arrays of the same bits",
        "golden in C++",
    )
    print_table(header, cells)
    for row in rows:
        shown = [("service", row.service), ("C++", row.built), *(("not tried", text) for text in row.skipped)]
        print("\n".join([f"\n{row.task}", *(f"  {what}: {text}" for what, text in shown if text)]))
    wrong = [f"{row.task}: {text}" for row in rows for text in row.wrong]
    print("\nHOLDS" if not wrong else "\nFAILS\n" + "\n".join(wrong))


if __name__ == "__main__":
    sys.exit(main())
