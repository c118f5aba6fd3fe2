"""Operations that behave as badly as vendor libraries have been seen to behave; run in workers by the tests."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgewright.core import errors

_calls = 0


def echo(arguments: dict[str, object]) -> dict[str, object]:
    return arguments


def count(arguments: dict[str, object]) -> dict[str, object]:
    """Return how often this process was called: it tells a new process from an old one."""
    global _calls
    _calls += 1
    return {"calls": _calls, "pid": os.getpid()}


def surroundings(arguments: dict[str, object]) -> dict[str, object]:
    return {
        "cwd": str(Path.cwd()),
        "path": sys.path,
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "parent": os.getppid(),
        "stdin": sys.stdin.read(),
        "interrupt_is_ignored": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "variable": os.environ.get("EDGEWRIGHT_TEST_VARIABLE"),
        "modules": sorted(sys.modules),
    }


def say(arguments: dict[str, object]) -> dict[str, object]:
    """Print from Python and from C, on both streams."""
    print("python out →")
    print("python err", file=sys.stderr)
    libc = ctypes.CDLL(None)
    libc.puts(b"c out")
    libc.dprintf(2, b"c err\n")
    return {}


def segfault(arguments: dict[str, object]) -> dict[str, object]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def read_null(arguments: dict[str, object]) -> dict[str, object]:
    ctypes.string_at(0)
    return {}


def puts_then_abort(arguments: dict[str, object]) -> dict[str, object]:
    ctypes.CDLL(None).puts(b"check failed: rank == 4")
    os.abort()


def exit_silently(arguments: dict[str, object]) -> dict[str, object]:
    os._exit(3)


def raise_system_exit(arguments: dict[str, object]) -> dict[str, object]:
    sys.exit(3)


def killed(arguments: dict[str, object]) -> dict[str, object]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def hang(arguments: dict[str, object]) -> dict[str, object]:
    """Note the process id in a file, then wait for ever in a call that no Python signal handler can leave."""
    marker = arguments.get("marker")
    if isinstance(marker, str):
        aside = Path(f"{marker}.part")
        aside.write_text(str(os.getpid()))
        aside.rename(marker)
    libc = ctypes.PyDLL(None)  # keeps the interpreter lock, as careless bindings do
    while True:
        libc.sleep(1000)


def hang_with_children(arguments: dict[str, object]) -> dict[str, object]:
    """Start a child in the group and one in a session of its own, then hang."""
    start_children(arguments)
    return hang(arguments)


def start_children(arguments: dict[str, object]) -> dict[str, object]:
    folder = Path(str(arguments["folder"]))
    sleeper = [sys.executable, "-c", "import time; time.sleep(1000)"]
    with_group = subprocess.Popen(sleeper)
    without_group = subprocess.Popen(sleeper, start_new_session=True)
    (folder / "children").write_text(f"{with_group.pid} {without_group.pid}")
    return {}


def start_children_then_crash(arguments: dict[str, object]) -> dict[str, object]:
    start_children(arguments)
    return segfault(arguments)


def flood(arguments: dict[str, object]) -> dict[str, object]:
    """Write `mebibytes` to stdout past Python, then a last line."""
    block = b"x" * 1023 + b"\n"
    megabyte = block * 1024
    mebibytes = arguments["mebibytes"]
    assert isinstance(mebibytes, int)
    for _ in range(mebibytes):
        rest = memoryview(megabyte)
        while rest:
            rest = rest[os.write(1, rest) :]
    os.write(1, b"end of the flood\n")
    return {}


def eat_memory(arguments: dict[str, object]) -> dict[str, object]:
    """Take 8 MiB after 8 MiB, in a child of this process if `in_child`, until stopped."""
    if arguments.get("in_child"):
        program = "import time; a = [bytearray(b'x') * (8 << 20) for _ in range(40)]; time.sleep(1000)"
        subprocess.run([sys.executable, "-c", program], check=True)
        return {}
    taken = []
    while True:
        taken.append(bytearray(b"x") * (8 << 20))
        time.sleep(0.005)


def raise_memory_error(arguments: dict[str, object]) -> dict[str, object]:
    raise MemoryError("tensor of 99 GiB")


def raise_value_error(arguments: dict[str, object]) -> dict[str, object]:
    raise ValueError("the first line\nthe second line")


def raise_named(arguments: dict[str, object]) -> dict[str, object]:
    error: type[errors.EdgewrightError] = getattr(errors, str(arguments["name"]))
    raise error(f"message of {arguments['name']}")


class VendorDataError(errors.DataError):
    """A subclass that the parent does not know."""


def raise_subclass(arguments: dict[str, object]) -> dict[str, object]:
    raise VendorDataError("no such column")


class UnprintableError(Exception):
    """Vendor exceptions whose text cannot be made have been seen."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_unprintable(arguments: dict[str, object]) -> dict[str, object]:
    raise UnprintableError


def raise_escapes(arguments: dict[str, object]) -> dict[str, object]:
    raise ValueError("\x1b[2Jcleared \udcff")


def return_value(arguments: dict[str, object]) -> object:
    """Return what is no answer: the kind is named in the arguments."""
    kind = arguments["kind"]
    if kind == "list":
        return [1, 2]
    if kind == "none":
        return None
    if kind == "path":
        return {"path": Path("a")}
    if kind == "nan":
        return {"value": float("nan")}
    if kind == "deep":
        deep: list[object] = []
        for _ in range(100_000):
            deep = [deep]
        return {"deep": deep}
    assert kind == "huge"
    return {"text": "x" * (65 << 20)}


def _own_files() -> tuple[Path, int]:
    """Return the control folder and the notification pipe of this worker, as a hostile library could find them."""
    return Path(sys.argv[3]), int(sys.argv[2])


def answer_raw(arguments: dict[str, object]) -> dict[str, object]:
    """Answer request `number` in place of the worker, with the given text."""
    folder, notify_fd = _own_files()
    text = str(arguments["text"]) * int(str(arguments.get("times", 1)))
    (folder / f"{arguments['number']}.response.json").write_text(text)
    os.write(notify_fd, f"{arguments['number']}\n".encode())
    time.sleep(1000)
    return {}


def answer_with_link(arguments: dict[str, object]) -> dict[str, object]:
    folder, notify_fd = _own_files()
    answer = folder / f"{arguments['number']}.response.json"
    if arguments["kind"] == "link":
        answer.symlink_to("/dev/zero")
    elif arguments["kind"] == "folder":
        answer.mkdir()
    elif arguments["kind"] == "fifo":
        os.mkfifo(answer)
    os.write(notify_fd, f"{arguments['number']}\n".encode())
    time.sleep(1000)
    return {}


def announce_garbage(arguments: dict[str, object]) -> dict[str, object]:
    os.write(_own_files()[1], b"\xff" * 1000)
    time.sleep(1000)
    return {}


def close_pipe(arguments: dict[str, object]) -> dict[str, object]:
    os.close(_own_files()[1])
    time.sleep(1000)
    return {}


def forked_answer(arguments: dict[str, object]) -> dict[str, object]:
    """Return from the operation in a fork too."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return {"who": "parent" if child else "fork"}


def note(arguments: dict[str, object]) -> dict[str, object]:
    """Return the process id and the times of start and end."""
    start_s = time.monotonic()
    time.sleep(float(str(arguments.get("seconds", 0))))
    return {"pid": os.getpid(), "start_s": start_s, "end_s": time.monotonic()}
