"""Running a sweep: points that are not in the store yet are computed and stored as they finish."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sparseloom.sweeps.evaluate import evaluate
from sparseloom.sweeps.executors import ExecutorLost, executor, in_any_order
from sparseloom.sweeps.points import Point, Space, sampled
from sparseloom.sweeps.search import generations
from sparseloom.sweeps.spec import SamplerKind, SweepSpec, read_spec
from sparseloom.sweeps.store import Store, check_place, open_store
from workloads.canonical import Spec

__all__ = ["SweepInterrupted", "SweepReport", "sweep"]

MOST_IN_BATCH: Final = 128
BATCH_S: Final = 0.5
"""Most points of one task, and about how long it takes: enough to hide what a task costs and for
neighbours to share what they map, short enough to lose little."""

OnPoint = Callable[[int, int], None]


class SweepInterrupted(KeyboardInterrupt):
    """The keyboard stopped a sweep; says what is stored and how to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport(Spec):
    """What a sweep did: points wanted, found in the store, computed now, and failed among all."""

    store: str
    sweep: str
    points: int
    cached: int
    computed: int
    failed: int


@dataclass(slots=True)
class _Progress:
    """Points as they finish, for whoever watches."""

    store: Store
    on_point: OnPoint | None
    total: int
    cached: int = 0
    computed: int = 0

    def found(self, count: int) -> None:
        self.cached += count
        self._tell()

    def add(self, count: int) -> None:
        self.computed += count
        self._tell()

    def _tell(self) -> None:
        if self.on_point:
            self.on_point(self.cached + self.computed, self.total)


def _batches(
    points: Iterable[tuple[str, Point]], size: Callable[[], int]
) -> Iterator[list[tuple[str, Point]]]:
    waiting = iter(points)
    while batch := list(islice(waiting, size())):
        yield batch


def _work(batch: Sequence[tuple[str, Point]]) -> Any:
    return evaluate([point for _, point in batch])


def _compute(pool: Any, workers: int, points: Sequence[tuple[str, Point]], seen: _Progress) -> None:
    """Run the points that the store does not have."""
    known = seen.store.known(key for key, _ in points)
    seen.found(len(known))
    new = [(key, point) for key, point in points if key not in known]
    most = min(MOST_IN_BATCH, len(new) // (8 * workers)) if workers > 1 else 1
    times: list[float] = []

    def size() -> int:
        mean = sum(times) / len(times) if times else BATCH_S
        return max(1, min(most, int(BATCH_S / max(mean, 1e-9))))

    for batch, outcomes in in_any_order(pool, workers, _work, _batches(new, size)):
        pairs = zip(batch, outcomes, strict=True)
        seen.store.add((key, point, outcome) for (key, point), outcome in pairs)
        times += [outcome.seconds for outcome in outcomes]
        seen.add(len(batch))


def _rounds(space: Space, store: Store, sweep: str) -> Iterator[list[tuple[str, Point]]]:
    """Yield the points to run, all at once or, where results steer the choice, by generation."""
    if space.spec.sampler.kind is SamplerKind.NSGA2:
        for indices in generations(space, lambda: store.rows(sweep)):
            yield _keyed(space, indices)
    else:
        # Neighbours share most of their machine: what one has mapped, the next need not.
        yield _keyed(space, sorted(sampled(space)))


def _keyed(space: Space, indices: Iterable[int]) -> list[tuple[str, Point]]:
    # Two spellings of one point are one point.
    points = map(space.point, indices)
    return list({point.key(): point for point in points}.items())


def _kept(seen: _Progress, store: str | Path) -> str:
    return (
        f"{seen.cached + seen.computed} of {seen.total} points are in {str(store)!r}: run the same "
        "command again to go on from there"
    )


def sweep(
    spec: SweepSpec | str | Path | Mapping[str, Any],
    store: str | Path,
    *,
    jobs: int = 1,
    dask: str | None = None,
    retry_failed: bool = False,
    on_point: OnPoint | None = None,
) -> SweepReport:
    """Run every point of `spec` that `store` does not hold, and store each as it finishes.

    `spec` is a specification, a YAML file or a mapping of its form. Points run in `jobs` local
    processes, or on the Dask cluster whose scheduler is at `dask`. A point that fails is stored
    with its reason, and runs again only with `retry_failed`. `on_point(done, total)` is called as
    points finish. Raises ValueError for a malformed specification or store, and, with what is
    stored by then, ExecutorLost when the workers are gone and SweepInterrupted on an interrupt:
    run it again to go on.
    """
    given = spec if isinstance(spec, SweepSpec) else read_spec(spec)
    space = Space.of(given)
    sampler = given.sampler
    total = len(space) if sampler.kind is SamplerKind.GRID else min(sampler.points, len(space))
    check_place(Path(store), create=True)
    # Workers first: without any no store is made.
    with executor(jobs, dask) as (pool, workers), open_store(Path(store), create=True) as opened:
        name = opened.begin(given)
        if retry_failed:
            opened.forget_failures(name)
        seen = _Progress(opened, on_point, total)
        wanted = 0
        try:
            for points in _rounds(space, opened, name):
                opened.claim(name, (key for key, _ in points))
                wanted += len(points)
                _compute(pool, workers, points, seen)
        except ExecutorLost as lost:
            raise ExecutorLost(f"{lost}; {_kept(seen, store)}") from lost
        except KeyboardInterrupt:
            raise SweepInterrupted(_kept(seen, store)) from None
        failed = sum(row.error is not None for row in opened.rows(name))
        return SweepReport(
            store=str(store),
            sweep=name,
            points=wanted,
            cached=seen.cached,
            computed=seen.computed,
            failed=failed,
        )
