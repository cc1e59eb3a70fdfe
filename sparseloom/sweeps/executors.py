"""Where points run: this process, local processes, or a Dask cluster, all alike.

Each is a `concurrent.futures.Executor`; the loop that feeds it knows nothing else.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
    wait,
)
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import Any, Final, TypeVar

__all__ = ["ExecutorLost", "executor", "in_any_order"]

Item = TypeVar("Item")
Done = TypeVar("Done")

IN_FLIGHT: Final = 3
"""Batches a worker has at hand: one it works on, the others so that it never waits."""

SLURM: Final = "slurm:"

_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class ExecutorLost(RuntimeError):
    """Workers are gone: what they had in flight is lost, everything stored before is not."""


class _Here(Executor):
    """Runs a call when it is submitted, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  handed on to whoever asks for the result
            future.set_exception(error)
        return future


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes started meanwhile use one thread: two would fight over a core."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _leave_interrupts() -> None:
    """Let the keyboard stop the process that feeds this one, not what this one works on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _processes(jobs: int) -> Iterator[Executor]:
    # Forking a process that has threads may hang; new interpreters do not inherit any.
    with _one_thread_each():
        pool = ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_leave_interrupts
        )
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    try:
        from distributed import Client
    except ImportError:
        raise RuntimeError(
            "Sweeping on a cluster needs the dask extra: pip install 'sparseloom[dask]'"
        ) from None
    try:
        client = Client(address, timeout="5s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ExecutorLost(f"No Dask scheduler answers at {address!r}: {error}") from None
    with client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise ExecutorLost(f"The Dask cluster at {address!r} has no workers")
        yield client.get_executor(pure=False), workers


@contextmanager
def _slurm(jobs: str) -> Iterator[str]:
    """Yield the address of a cluster of as many Slurm jobs, once all of them run."""
    if not jobs.isdecimal() or int(jobs) < 1:
        raise ValueError(f"Slurm needs a number of jobs, such as slurm:4, not slurm:{jobs}")
    try:
        from dask import config
        from dask_jobqueue import slurm
    except ImportError:
        raise RuntimeError(
            "Sweeping on Slurm needs the slurm extra: pip install 'sparseloom[slurm]'"
        ) from None
    for key in ("jobqueue.slurm.cores", "jobqueue.slurm.memory"):
        if config.get(key, None) is None:
            raise ValueError(
                f"Slurm jobs need {key} in Dask's configuration, such as ~/.config/dask"
            )
    with slurm.SLURMCluster() as cluster:
        cluster.scale(jobs=int(jobs))
        cluster.wait_for_workers(int(jobs))
        yield cluster.scheduler_address


@contextmanager
def executor(jobs: int, dask: str | None = None) -> Iterator[tuple[Executor, int]]:
    """Yield an executor and its number of workers: `jobs` processes, or those of a cluster.

    `dask` is the address of a scheduler, or slurm:N for a cluster of N Slurm jobs. Raises
    ValueError for jobs below 1, ExecutorLost when no cluster answers at `dask`.
    """
    if jobs < 1:
        raise ValueError(f"A sweep needs at least 1 job, not {jobs}")
    if dask is not None and dask.startswith(SLURM):
        with _slurm(dask.removeprefix(SLURM)) as address, _cluster(address) as found:
            yield found
    elif dask is not None:
        with _cluster(dask) as found:
            yield found
    elif jobs == 1:
        yield _Here(), 1
    else:
        with _processes(jobs) as pool:
            yield pool, jobs


def in_any_order(
    pool: Executor,
    workers: int,
    work: Callable[[Sequence[Item]], Done],
    batches: Iterable[Sequence[Item]],
) -> Iterator[tuple[Sequence[Item], Done]]:
    """Yield every batch with its result as it finishes; few are in flight at a time.

    An interrupt is raised when what is in work by then has been yielded. Raises ExecutorLost when
    the workers are gone.
    """
    waiting = iter(batches)
    flying: dict[Future[Done], Sequence[Item]] = {}
    try:
        while True:
            for batch in islice(waiting, IN_FLIGHT * workers - len(flying)):
                flying[pool.submit(work, batch)] = batch
            if not flying:
                return
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                yield flying.pop(future), future.result()
    except KeyboardInterrupt:
        for future in as_completed([future for future in flying if not future.cancel()]):
            if future.exception() is None:
                yield flying[future], future.result()
        raise
    except Exception as error:
        # Executors name the loss of their workers each in their own way; work itself returns
        # outcomes and raises nothing.
        raise ExecutorLost(f"The workers are gone ({type(error).__name__}: {error})") from error
