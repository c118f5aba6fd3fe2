"""Workers run operations that crash, hang, flood and lie, and always hand back a result or an EdgewrightError."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from edgewright.core import errors
from edgewright.core.errors import DataError, EdgewrightError, UsageError, WorkerError
from edgewright.workers.pool import Limits, Worker, call_once
from edgewright.workers.process import LOG_TAIL_BYTES

Wait = Callable[[Callable[[], bool]], None]
IsGone = Callable[[int], bool]
MODULE = "operations_for_tests"


def calls_of(worker: Worker) -> object:
    return worker.call(f"{MODULE}:count", {})["calls"]


class TestCall:
    def test_returns_what_the_operation_returns(self) -> None:
        arguments: dict[str, object] = {"text": "ä→\n", "list": [1, 2.5, None, True], "object": {"a": {}}}
        with Worker("echo") as worker:
            assert worker.call(f"{MODULE}:echo", arguments) == arguments

    def test_keeps_the_process_between_calls(self) -> None:
        with Worker("count") as worker:
            first = worker.call(f"{MODULE}:count", {})
            second = worker.call(f"{MODULE}:count", {})
            assert (first["calls"], second["calls"]) == (1, 2)
            assert first["pid"] == second["pid"] == worker.pid != os.getpid()
        assert worker.pid is None

    def test_call_once_uses_a_fresh_process(self) -> None:
        assert [call_once(f"{MODULE}:count", {})["calls"] for _ in range(2)] == [1, 1]

    def test_the_child_sees_the_parents_surroundings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "their_module.py").write_text("def factory(arguments):\n    return {'made': True}\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        with Worker("surroundings", env={"EDGEWRIGHT_TEST_VARIABLE": "yes"}) as worker:
            seen = worker.call(f"{MODULE}:surroundings", {})
            assert worker.call("their_module:factory", {}) == {"made": True}
            assert seen["group"] == seen["session"] == worker.pid
        assert seen["cwd"] == str(tmp_path)
        assert seen["parent"] == os.getpid()
        assert seen["stdin"] == ""
        assert seen["interrupt_is_ignored"] is True
        assert seen["variable"] == "yes"
        assert "EDGEWRIGHT_TEST_VARIABLE" not in os.environ

    def test_a_child_loads_little(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither numpy nor the rooms of edgewright are loaded unless an operation asks for them."""
        code = "import sys\n\ndef modules(arguments):\n    return {'names': sorted(sys.modules)}\n"
        (tmp_path / "modules_of_a_child.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        names = call_once("modules_of_a_child:modules", {})["names"]
        assert isinstance(names, list)
        assert "edgewright.workers.serve" in names
        assert not {"numpy", "pathlib", "edgewright.core", "edgewright.workers.pool"} & set(names)

    def test_control_folder_is_private(self, temporary_folder: Path) -> None:
        with Worker("private"):
            (folder,) = temporary_folder.iterdir()
            assert folder.stat().st_mode & 0o777 == 0o700

    def test_a_closed_worker_refuses(self) -> None:
        worker = Worker("closed")
        worker.close()
        with pytest.raises(WorkerError, match="is closed"):
            worker.call(f"{MODULE}:echo", {})

    @pytest.mark.parametrize("value", [float("inf"), Path("a"), {1, 2}, b"bytes"])
    def test_refuses_arguments_that_are_not_json(self, value: object) -> None:
        with Worker("arguments") as worker:
            with pytest.raises(WorkerError, match=r"the arguments of .* cannot be sent"):
                worker.call(f"{MODULE}:echo", {"value": value})
            assert calls_of(worker) == 1

    @pytest.mark.parametrize(
        ("operation", "reason"),
        [
            ("no_such_module_here:f", "ModuleNotFoundError"),
            (f"{MODULE}:no_such_function", "AttributeError"),
            (f"{MODULE}:MODULE", "AttributeError"),
            ("no colon", "package.module:function"),
        ],
    )
    def test_names_an_operation_that_is_not_there(self, operation: str, reason: str) -> None:
        with Worker("missing") as worker, pytest.raises(WorkerError, match=reason):
            worker.call(operation, {})


class TestErrors:
    @pytest.mark.parametrize(
        "name",
        [
            "UsageError",
            "RecipeError",
            "UnknownNameError",
            "FormatMismatchError",
            "DataError",
            "UnavailableError",
            "ConversionError",
            "BudgetError",
            "IntegrityError",
            "WorkerError",
        ],
    )
    def test_our_errors_cross_by_class(self, name: str) -> None:
        with pytest.raises(EdgewrightError) as caught:
            call_once(f"{MODULE}:raise_named", {"name": name})
        assert type(caught.value) is getattr(errors, name)
        assert str(caught.value) == f"message of {name}"

    def test_a_subclass_arrives_as_its_nearest_known_class(self) -> None:
        with pytest.raises(DataError, match="no such column"):
            call_once(f"{MODULE}:raise_subclass", {})

    def test_other_exceptions_give_one_line_and_keep_the_traceback(self) -> None:
        with Worker("raises") as worker:
            with pytest.raises(WorkerError) as caught:
                worker.call(f"{MODULE}:raise_value_error", {})
            assert str(caught.value) == f"{MODULE}:raise_value_error raised ValueError: the first line"
            assert "in raise_value_error" in worker.log_tail
            assert "the second line" in worker.log_tail
            assert calls_of(worker) == 1

    def test_an_exception_without_text_is_reported_by_its_class(self) -> None:
        with pytest.raises(WorkerError, match=r"raised UnprintableError$"):
            call_once(f"{MODULE}:raise_unprintable", {})

    def test_a_message_cannot_drive_the_terminal(self) -> None:
        with pytest.raises(WorkerError) as caught:
            call_once(f"{MODULE}:raise_escapes", {})
        assert str(caught.value).endswith(r"ValueError: \x1b[2Jcleared \udcff")

    @pytest.mark.parametrize(
        ("operation", "reason"),
        [("raise_memory_error", "ran out of memory .*99 GiB"), ("raise_system_exit", "SystemExit: 3")],
    )
    def test_memory_errors_and_exits_end_the_process(self, operation: str, reason: str) -> None:
        with Worker("final") as worker:
            assert calls_of(worker) == 1
            with pytest.raises(WorkerError, match=reason):
                worker.call(f"{MODULE}:{operation}", {})
            assert operation in worker.log_tail
            assert calls_of(worker) == 1


class TestCrash:
    @pytest.mark.parametrize(
        ("operation", "ending"),
        [
            ("segfault", "SIGSEGV"),
            ("read_null", "SIGSEGV"),
            ("puts_then_abort", "SIGABRT"),
            ("exit_silently", "exit code 3"),
            ("killed", "SIGKILL"),
        ],
    )
    def test_names_the_ending_and_starts_again(self, operation: str, ending: str) -> None:
        with Worker("crashing") as worker:
            assert calls_of(worker) == 1
            with pytest.raises(WorkerError, match=f"'crashing' crashed in {MODULE}:{operation}: {ending}"):
                worker.call(f"{MODULE}:{operation}", {})
            assert calls_of(worker) == 1

    def test_quotes_the_last_words_of_c_code(self) -> None:
        with pytest.raises(WorkerError, match=r"check failed: rank == 4(.|\n)*in puts_then_abort"):
            call_once(f"{MODULE}:puts_then_abort", {})

    def test_does_not_quote_an_earlier_call(self) -> None:
        with Worker("earlier") as worker:
            with pytest.raises(WorkerError, match="ValueError"):
                worker.call(f"{MODULE}:raise_value_error", {})
            with pytest.raises(WorkerError, match=r"exit code 3, no answer\. It printed nothing\.$"):
                worker.call(f"{MODULE}:exit_silently", {})
            assert "ValueError" in worker.log_tail

    def test_a_crash_between_calls_is_reported(self) -> None:
        with Worker("idle") as worker:
            assert calls_of(worker) == 1
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGABRT)
            with pytest.raises(WorkerError, match="SIGABRT"):
                worker.call(f"{MODULE}:echo", {})
            assert calls_of(worker) == 1

    def test_what_a_crashed_child_started_ends_with_it(
        self, tmp_path: Path, wait_until: Wait, is_gone: IsGone
    ) -> None:
        with pytest.raises(WorkerError, match="SIGSEGV"):
            call_once(f"{MODULE}:start_children_then_crash", {"folder": str(tmp_path)})
        with_group, without_group = map(int, (tmp_path / "children").read_text().split())
        wait_until(lambda: is_gone(with_group))
        # A crash leaves nobody to ask for children that moved to a session of their own.
        os.kill(without_group, signal.SIGKILL)


class TestLimits:
    def test_time(self, tmp_path: Path, wait_until: Wait, is_gone: IsGone) -> None:
        with Worker("slow") as worker:
            with pytest.raises(WorkerError, match=r"hang_with_children did not finish within 0\.7 s"):
                worker.call(f"{MODULE}:hang_with_children", {"folder": str(tmp_path)}, timeout_s=0.7)
            for pid in (tmp_path / "children").read_text().split():
                wait_until(partial(is_gone, int(pid)))
            assert calls_of(worker) == 1

    @pytest.mark.parametrize("in_child", [False, True])
    def test_memory_of_the_whole_tree(self, in_child: bool) -> None:
        with Worker("hungry", limits=Limits(memory_bytes=150 << 20)) as worker:
            with pytest.raises(WorkerError, match=r"used \d{3} MiB of memory and .* limit is 150 MiB"):
                worker.call(f"{MODULE}:eat_memory", {"in_child": in_child})
            assert calls_of(worker) == 1


class TestLog:
    def test_holds_python_and_c_prints(self) -> None:
        with Worker("prints") as worker:
            worker.call(f"{MODULE}:say", {})
            assert set(worker.log_tail.splitlines()) == {"python out →", "python err", "c out", "c err"}
        assert "c out" in worker.log_tail

    def test_a_flood_neither_blocks_nor_fills_memory_or_disk(self, temporary_folder: Path) -> None:
        before_bytes = psutil.Process().memory_info().rss
        with Worker("flood") as worker:
            worker.call(f"{MODULE}:flood", {"mebibytes": 200})
            assert worker.log_tail.endswith("xxx\nend of the flood\n")
            assert len(worker.log_tail) == LOG_TAIL_BYTES
            assert sum(path.stat().st_size for path in temporary_folder.rglob("*") if path.is_file()) == 0
        assert psutil.Process().memory_info().rss - before_bytes < 20 << 20


class TestProtocol:
    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ("list", "returned list, but a dictionary"),
            ("none", "returned NoneType"),
            ("path", "PosixPath is not JSON serializable"),
            ("nan", "not JSON compliant"),
            ("deep", "recursion|nested"),
            ("huge", "at most 67108864 may cross"),
        ],
    )
    def test_a_result_that_cannot_cross_is_named(self, kind: str, reason: str) -> None:
        with Worker("results") as worker:
            with pytest.raises(WorkerError, match=f"protocol: .*({reason})"):
                worker.call(f"{MODULE}:return_value", {"kind": kind})
            assert calls_of(worker) == 1

    @pytest.mark.parametrize(
        ("text", "times", "reason"),
        [
            ("garbage", 1, "not JSON"),
            ("", 1, "not JSON"),
            ("[1]", 1, "list, but a JSON object"),
            ("{}", 1, "but 'result' or 'error' is expected"),
            ('{"result": 3}', 1, "the result is int"),
            ('{"result": {"a": NaN}}', 1, "NaN is not a JSON number"),
            ('{"error": "UsageError", "message": "m"}', 1, "without the text 'traceback'"),
            ('{"a":', 100_000, "not JSON"),
            ("[", 1_000_000, "not JSON"),
            ("9", 10_000, "not JSON"),
            ("x" * 1024, 65 << 10, "at most 67108864 are read"),
        ],
        ids=range(11),
    )
    def test_a_hostile_answer_is_refused(self, text: str, times: int, reason: str) -> None:
        with Worker("hostile") as worker:
            with pytest.raises(WorkerError, match=f"protocol: the answer of .* is .*{reason}"):
                worker.call(f"{MODULE}:answer_raw", {"number": 1, "text": text, "times": times})
            assert calls_of(worker) == 1

    @pytest.mark.parametrize("kind", ["link", "folder", "fifo", "nothing"])
    def test_only_plain_files_are_read(self, kind: str) -> None:
        with Worker("links") as worker, pytest.raises(WorkerError, match=r"not a plain file|cannot be read"):
            worker.call(f"{MODULE}:answer_with_link", {"number": 1, "kind": kind})

    def test_an_unknown_error_class_becomes_a_worker_error(self) -> None:
        text = '{"error": "SystemExit", "message": "m", "traceback": "", "is_final": false}'
        with Worker("class") as worker, pytest.raises(WorkerError, match="a worker reported SystemExit: m"):
            worker.call(f"{MODULE}:answer_raw", {"number": 1, "text": text})

    @pytest.mark.parametrize(
        ("operation", "reason"),
        [("announce_garbage", "announced"), ("close_pipe", "closed the pipe of the worker")],
    )
    def test_a_misused_pipe_is_noticed(self, operation: str, reason: str) -> None:
        with Worker("pipe") as worker:
            with pytest.raises(WorkerError, match=f"protocol: .*{reason}"):
                worker.call(f"{MODULE}:{operation}", {})
            assert calls_of(worker) == 1

    def test_a_fork_cannot_answer(self) -> None:
        with Worker("fork") as worker:
            assert worker.call(f"{MODULE}:forked_answer", {}) == {"who": "parent"}
            assert worker.call(f"{MODULE}:echo", {"a": 1}) == {"a": 1}


class TestThreads:
    def test_close_from_another_thread_ends_the_call(self, tmp_path: Path, wait_until: Wait) -> None:
        worker = Worker("closed")
        marker = tmp_path / "marker"
        caught: list[BaseException] = []

        def call() -> None:
            try:
                worker.call(f"{MODULE}:hang", {"marker": str(marker)})
            except EdgewrightError as err:
                caught.append(err)

        thread = threading.Thread(target=call)
        thread.start()
        wait_until(marker.exists)
        worker.close()
        thread.join()
        assert [str(err) for err in caught] == [f"worker 'closed' was closed while {MODULE}:hang ran."]

    def test_a_worker_outlives_the_thread_that_started_it(self) -> None:
        """The kernel ties a child to the thread that started it, not to the process."""
        with_thread = Worker("handed over")
        thread = threading.Thread(target=lambda: with_thread.call(f"{MODULE}:count", {}))
        thread.start()
        thread.join()
        with with_thread as worker:
            assert calls_of(worker) == 2


def test_limits_default_to_ten_minutes_and_eight_gibibytes() -> None:
    assert (Limits().timeout_s, Limits().memory_bytes) == (600, 8 << 30)


def test_usage_errors_keep_their_exit_code() -> None:
    with pytest.raises(UsageError) as caught:
        call_once(f"{MODULE}:raise_named", {"name": "UsageError"})
    assert caught.value.exit_code == 2
