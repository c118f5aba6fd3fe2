"""Many jobs over a few workers: each gets its own outcome, keys share processes, an interrupt ends all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from edgewright.core.errors import ConversionError, UsageError, WorkerError
from edgewright.workers.jobs import Job, JobEvent, JobState, map_jobs
from edgewright.workers.pool import Limits

MODULE = "operations_for_tests"


def job(key: str, function: str, **arguments: object) -> Job:
    return Job(key=key, operation=f"{MODULE}:{function}", arguments=arguments)


def test_no_jobs_need_no_workers() -> None:
    assert map_jobs([], max_workers=2) == []


def test_a_failing_job_stops_no_other() -> None:
    outcomes = map_jobs(
        [
            job("a", "echo", number=0),
            job("a", "segfault"),
            job("a", "echo", number=2),
            job("b", "raise_named", name="ConversionError"),
            Job(key="b", operation=f"{MODULE}:hang", timeout_s=0.5),
            job("b", "echo", number=5),
        ],
        max_workers=2,
    )
    assert [type(outcome) for outcome in outcomes] == [
        dict,
        WorkerError,
        dict,
        ConversionError,
        WorkerError,
        dict,
    ]
    assert [outcome["number"] for outcome in outcomes if isinstance(outcome, dict)] == [0, 2, 5]
    assert "SIGSEGV" in str(outcomes[1])
    assert "did not finish within 0.5 s" in str(outcomes[4])


def test_limits_hold_for_every_job() -> None:
    (outcome,) = map_jobs([job("a", "eat_memory")], max_workers=1, limits=Limits(memory_bytes=100 << 20))
    assert isinstance(outcome, WorkerError)
    assert "the limit is 100 MiB" in str(outcome)


def test_one_worker_serves_key_after_key_in_one_process_each() -> None:
    outcomes = map_jobs([job(key, "note") for key in "abcabcabc"], max_workers=1)
    pids = [outcome["pid"] for outcome in outcomes if isinstance(outcome, dict)]
    assert pids == pids[:3] * 3
    assert len(set(pids)) == 3


def test_workers_take_keys_that_no_other_serves() -> None:
    outcomes = map_jobs([job(key, "note", seconds=0.05) for key in "aaaabbbb"], max_workers=2)
    pids = [outcome["pid"] for outcome in outcomes if isinstance(outcome, dict)]
    assert pids[0] != pids[4]
    assert len(pids) == 8


def test_workers_without_a_key_of_their_own_help_with_another() -> None:
    """The second worker is there before the first job ends, so it takes the second job of the same key."""
    outcomes = map_jobs([job("a", "note", seconds=0.5) for _ in range(2)], max_workers=2)
    first, second = (outcome for outcome in outcomes if isinstance(outcome, dict))
    assert first["pid"] != second["pid"]


def test_events_come_in_the_callers_thread_and_in_order() -> None:
    events: list[JobEvent] = []
    threads: set[threading.Thread] = set()

    def note(event: JobEvent) -> None:
        events.append(event)
        threads.add(threading.current_thread())

    outcomes = map_jobs([job("a", "echo"), job("b", "exit_silently")], max_workers=2, on_event=note)
    assert threads == {threading.current_thread()}
    for index, outcome in enumerate(outcomes):
        started, finished = (event for event in events if event.index == index)
        assert (started.state, started.outcome) == (JobState.STARTED, None)
        assert finished.state is JobState.FINISHED
        assert finished.outcome is outcome
        assert finished.elapsed_s > 0


def test_an_error_in_the_callback_ends_every_process(tmp_path: Path) -> None:
    class DisplayError(Exception):
        pass

    def fail(event: JobEvent) -> None:
        if event.state is JobState.FINISHED:
            raise DisplayError

    jobs = [job("a", "echo"), job("b", "hang"), job("c", "hang")]
    before = set(psutil.Process().children())  # workers of other tests' fixtures may live in this process
    with pytest.raises(DisplayError):
        map_jobs(jobs, max_workers=2, on_event=fail)
    assert not [
        child
        for child in set(psutil.Process().children()) - before
        if "edgewright.workers" in str(child.cmdline())
    ]


def test_refuses_to_run_without_workers() -> None:
    with pytest.raises(UsageError, match="max_workers is 0"):
        map_jobs([job("a", "echo")], max_workers=0)


def test_the_environment_reaches_every_worker() -> None:
    outcomes = map_jobs(
        [job(key, "surroundings") for key in "ab"], max_workers=2, env={"EDGEWRIGHT_TEST_VARIABLE": "set"}
    )
    assert [outcome["variable"] for outcome in outcomes if isinstance(outcome, dict)] == ["set", "set"]
    assert "EDGEWRIGHT_TEST_VARIABLE" not in os.environ


def test_a_job_gets_the_result_of_the_one_it_comes_after() -> None:
    first = job("a", "echo", number=1, text="from the first")
    second = Job(key="b", operation=f"{MODULE}:echo", arguments={"number": 2, "own": True}, after=0)
    third = Job(key="c", operation=f"{MODULE}:echo", arguments={"last": True}, after=1)
    outcomes = map_jobs([first, second, third], max_workers=3)
    assert outcomes[1] == {"number": 1, "own": True, "text": "from the first"}
    assert outcomes[2] == {"number": 1, "own": True, "text": "from the first", "last": True}


def test_waiting_for_a_job_holds_up_no_other() -> None:
    events: list[tuple[int, JobState]] = []
    jobs = [
        job("a", "note"),
        Job(key="b", operation=f"{MODULE}:note", after=0),
        job("b", "note"),
    ]
    outcomes = map_jobs(jobs, max_workers=1, on_event=lambda event: events.append((event.index, event.state)))
    assert all(isinstance(outcome, dict) for outcome in outcomes)
    assert events.index((0, JobState.FINISHED)) < events.index((1, JobState.STARTED))
    pids = [outcome["pid"] for outcome in outcomes if isinstance(outcome, dict)]
    assert pids[1] == pids[2]


def test_jobs_after_a_failed_one_fail_with_its_error_and_never_start() -> None:
    events: list[JobEvent] = []
    jobs = [
        job("a", "raise_named", name="ConversionError"),
        Job(key="a", operation=f"{MODULE}:echo", after=0),
        Job(key="a", operation=f"{MODULE}:echo", after=1),
        job("a", "echo", number=3),
    ]
    outcomes = map_jobs(jobs, max_workers=2, on_event=events.append)
    assert isinstance(outcomes[0], ConversionError)
    assert outcomes[1] is outcomes[0]
    assert outcomes[2] is outcomes[0]
    assert outcomes[3] == {"number": 3}
    assert {event.index for event in events if event.state is JobState.STARTED} == {0, 3}


@pytest.mark.parametrize("after", [-1, 1, 2])
def test_a_job_comes_after_an_earlier_one_only(after: int) -> None:
    jobs = [job("a", "echo"), Job(key="a", operation=f"{MODULE}:echo", after=after)]
    with pytest.raises(UsageError, match="comes after job"):
        map_jobs(jobs, max_workers=1)
