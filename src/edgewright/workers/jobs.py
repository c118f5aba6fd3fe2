"""Many operations over a few workers, side by side, none stopping the others."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from edgewright.core.errors import EdgewrightError, UsageError
from edgewright.workers.pool import DEFAULT_LIMITS, Limits, Worker

Outcome = dict[str, object] | EdgewrightError


@dataclass(frozen=True, kw_only=True)
class Job:
    """One operation to run.

    key: jobs of one key share processes, so that a vendor's imports are paid once: the runtime, for instance.
    timeout_s: replaces the limit of `map_jobs`.
    after: position of the job, earlier in the sequence, that must have succeeded; its result is added to the
        arguments. When it fails, so does this one, with the same error and without a start.
    environment: the toolchain environment to run in; jobs of one key have the same.
    """

    key: str
    operation: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    timeout_s: float | None = None
    after: int | None = None
    environment: str = ""


class JobState(Enum):
    """Where a job is."""

    STARTED = "started"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """A change of one job.

    index: of the job in the sequence given. elapsed_s: since its start, wall clock. outcome: None until it
    has finished.
    """

    index: int
    job: Job
    state: JobState
    elapsed_s: float = 0.0
    outcome: Outcome | None = None


def map_jobs(
    jobs: Sequence[Job],
    *,
    max_workers: int,
    limits: Limits = DEFAULT_LIMITS,
    env: Mapping[str, str] | None = None,
    on_event: Callable[[JobEvent], None] | None = None,
) -> list[Outcome]:
    """Return for each job, in order, its result or the error that it ended with.

    Each of at most `max_workers` threads drives one worker. It takes next a job of the key it served last,
    else of a key that no other worker serves, else any. A new key gets a new process: runtimes of different
    vendors in one process disturb each other. An interrupt, or an error in `on_event`, ends every process and
    is raised.

    Args:
        jobs: what to run.
        max_workers: number of processes at one time, at least 1.
        limits: for each job.
        env: added to the environment of every worker.
        on_event: called in the calling thread, one event after another.
    Raises:
        UsageError: `max_workers` is below 1, or a job comes after one that is not before it in the sequence.
    """
    if max_workers < 1:
        raise UsageError(f"max_workers is {max_workers}, but at least 1 worker is needed.")
    for index, job in enumerate(jobs):
        if job.after is not None and not 0 <= job.after < index:
            raise UsageError(f"job {index} comes after job {job.after}, but 0..{index - 1} is expected.")
    outcomes: list[Outcome | None] = [None] * len(jobs)
    events: queue.SimpleQueue[JobEvent | BaseException] = queue.SimpleQueue()
    queued = _Queue(jobs)
    lanes = [_Lane(queued, limits, env, events) for _ in range(min(max_workers, len(jobs)))]
    try:
        for lane in lanes:
            lane.start()
        left = len(jobs)
        while left:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            if event.outcome is not None:
                outcomes[event.index] = event.outcome
                left -= 1
            if on_event is not None:
                on_event(event)
    finally:
        queued.clear()
        for lane in lanes:
            lane.stop()
        for lane in lanes:
            if lane.is_alive():
                lane.join()
    return [outcome for outcome in outcomes if outcome is not None]


class _Queue:
    """The jobs that wait, the key that each lane serves, and the results that other jobs need."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._changed = threading.Condition()
        self._waiting = deque(enumerate(jobs))
        self._served: dict[_Lane, str] = {}
        self._results: dict[int, dict[str, object]] = {}

    def take(self, lane: _Lane) -> tuple[int, Job] | None:
        """Return the next job for `lane` with its index, or None when none is left; waits for one to be ready."""
        with self._changed:
            own = self._served.pop(lane, None)
            while self._waiting:
                ready = [
                    (i, job) for i, job in self._waiting if job.after is None or job.after in self._results
                ]
                others = set(self._served.values())
                chosen = min(ready, key=lambda entry: _rank(entry[1].key, own, others), default=None)
                if chosen is not None:
                    self._waiting.remove(chosen)
                    index, job = chosen
                    self._served[lane] = job.key
                    if job.after is not None:
                        job = replace(job, arguments={**job.arguments, **self._results[job.after]})
                    return index, job
                self._changed.wait()
            return None

    def finish(self, index: int, outcome: Outcome) -> list[tuple[int, Job]]:
        """Note the outcome of job `index`; return the jobs that fail with it, which are taken off the queue."""
        with self._changed:
            if not isinstance(outcome, EdgewrightError):
                self._results[index] = outcome
                failed = []
            else:
                lost = {index}
                for i, job in self._waiting:  # in order, so that a chain is found in one pass
                    if job.after in lost:
                        lost.add(i)
                failed = [(i, job) for i, job in self._waiting if i in lost]
                for entry in failed:
                    self._waiting.remove(entry)
            self._changed.notify_all()
            return failed

    def clear(self) -> None:
        """Forget the jobs that wait."""
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()


def _rank(key: str, own: str | None, others: set[str]) -> int:
    """Return how late a job of `key` is taken; among equals `min` keeps the order of the jobs."""
    if key == own:
        return 0
    return 2 if key in others else 1


class _Lane(threading.Thread):
    """A thread that drives one worker at a time. A daemon: it never keeps an interrupted program alive."""

    def __init__(
        self,
        queued: _Queue,
        limits: Limits,
        env: Mapping[str, str] | None,
        events: queue.SimpleQueue[JobEvent | BaseException],
    ) -> None:
        super().__init__(name="edgewright-jobs", daemon=True)
        self._queued = queued
        self._limits = limits
        self._env = env
        self._events = events
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._is_stopped = False

    def run(self) -> None:
        try:
            while (taken := self._queued.take(self)) is not None:
                self._run_job(*taken)
        except BaseException as err:  # our own bug: raised in the calling thread
            self._events.put(err)
        finally:
            self.stop()

    def stop(self) -> None:
        """End the worker, and with it the job under way."""
        with self._lock:
            self._is_stopped = True
            worker = self._worker
        if worker is not None:
            worker.close()

    def _run_job(self, index: int, job: Job) -> None:
        started_s = time.monotonic()
        self._events.put(JobEvent(index=index, job=job, state=JobState.STARTED))
        outcome: Outcome
        try:
            outcome = self._worker_for(job).call(job.operation, job.arguments, timeout_s=job.timeout_s)
        except EdgewrightError as err:
            outcome = err
        elapsed_s = time.monotonic() - started_s
        self._events.put(
            JobEvent(index=index, job=job, state=JobState.FINISHED, elapsed_s=elapsed_s, outcome=outcome)
        )
        for lost, other in self._queued.finish(index, outcome):
            self._events.put(JobEvent(index=lost, job=other, state=JobState.FINISHED, outcome=outcome))

    def _worker_for(self, job: Job) -> Worker:
        worker = self._worker
        if worker is not None and worker.name == job.key:
            return worker
        if worker is not None:
            worker.close()
        with self._lock:
            self._worker = Worker(job.key, limits=self._limits, env=self._env, environment=job.environment)
            if self._is_stopped:
                self._worker.close()
            return self._worker
