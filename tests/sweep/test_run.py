"""Sweeps resume, share a store, survive workers and machines that fail, and find the optimum."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

import sparseloom as sl
from sparseloom.runs import run
from sparseloom.sweeps import sweep
from sparseloom.sweeps.evaluate import causes, evaluate
from sparseloom.sweeps.executors import executor
from sparseloom.sweeps.points import Space
from sparseloom.sweeps.report import sweep_tables
from sparseloom.sweeps.run import ExecutorLost, SweepInterrupted
from sparseloom.sweeps.spec import read_spec
from sparseloom.sweeps.store import open_store
from sparseloom.sweeps.summary import pareto_front, summarise, to_dataframe
from workloads.sparsity import NofM

ROOT = Path(__file__).parents[2]


def rows(path):
    with open_store(path) as store:
        return list(store.rows())


def test_every_point_is_what_a_run_of_its_own_gives(small, topology, tmp_path):
    """Cycles and energy of stored points equal those of simulating the same machine directly."""
    done = sweep(small, tmp_path / "s.db")
    assert (done.points, done.computed, done.cached, done.failed) == (24, 24, 0, 8)
    found = {
        (row.point["rows"], row.point["cols"], row.point["overlap"], row.point["sparsity"]): row
        for row in rows(tmp_path / "s.db")
    }
    dense = sl.load(topology)
    for r, c, overlap in product((2, 4), (2, 4), (True, False)):
        arch = sl.arch("nm-tiny", rows=r, cols=c, overlap=overlap)
        for graph, label in ((dense, "dense"), (dense.sparsify(NofM(2, 8)), "2:8")):
            result = sl.simulate(graph, arch)
            metrics = found[r, c, overlap, label].metrics
            assert metrics["cycles"] == result.cycles
            assert metrics["energy_j"] == sl.price(result).energy_j
            assert metrics["multipliers"] == r * c


def test_a_machine_of_programs_is_swept_as_it_runs(tmp_path):
    """A DspChain compiles the graph; a sparsity that is asked for is not the published one."""
    spec = {
        "workloads": [{"source": "llama2-7b", "options": {"prefill": 16}}],
        "sparsities": ["dense", "4:16"],
        "archs": [{"base": "flightllm-vhk158", "parameters": {"hbm.latency_cycles": [40, 80]}}],
        "objectives": ["seconds", "buffer_bytes"],
    }
    assert sweep(spec, tmp_path / "s.db").failed == 0
    found = {
        (r.point["sparsity"], r.point["hbm.latency_cycles"]): r for r in rows(tmp_path / "s.db")
    }
    for (sparsity, latency), row in found.items():
        machine = sl.arch("flightllm-vhk158", hbm={"latency_cycles": latency})
        alone = run("llama2-7b", arch=machine, sparsity=sparsity, prefill=16)
        assert row.metrics["cycles"] == alone.result.cycles
        assert row.metrics["seconds"] == alone.result.seconds
        assert row.metrics["energy_j"] == alone.cost.energy_j
        parts = ("act_buffer", "weight_buffer", "mv_buffer", "out_buffer")
        sizes = [getattr(machine, part).capacity_bytes for part in parts]
        assert row.metrics["buffer_bytes"] == sum(sizes)


def test_failed_points_are_rows_with_their_reason(small, tmp_path):
    sweep(small, tmp_path / "s.db")
    failed = [row for row in rows(tmp_path / "s.db") if row.error]
    assert {row.point["rows"] for row in failed} == {0}
    assert all("NMArray rows must be at least 1, not 0" in row.error for row in failed)
    assert all(row.metrics is None for row in failed)


def test_a_rerun_computes_nothing_and_changes_nothing(small, tmp_path):
    sweep(small, tmp_path / "s.db")
    before = [(row.digest, row.metrics, row.error, row.seconds) for row in rows(tmp_path / "s.db")]
    again = sweep(small, tmp_path / "s.db")
    assert (again.computed, again.cached, again.failed) == (0, 24, 8)
    after = [(row.digest, row.metrics, row.error, row.seconds) for row in rows(tmp_path / "s.db")]
    assert before == after


def test_failed_points_run_again_only_when_asked(small, tmp_path):
    sweep(small, tmp_path / "s.db")
    assert sweep(small, tmp_path / "s.db", retry_failed=True).computed == 8


def test_an_overlapping_sweep_computes_only_what_is_new(small, tmp_path):
    sweep(small, tmp_path / "s.db")
    small["archs"][0]["parameters"]["rows"] = [2, 8]
    wider = sweep(small, tmp_path / "s.db")
    assert (wider.points, wider.computed, wider.cached) == (16, 8, 8)


def test_processes_find_what_one_process_finds(small, tmp_path):
    sweep(small, tmp_path / "one.db")
    sweep(small, tmp_path / "two.db", jobs=2)
    one, two = (
        [(row.digest, row.point, row.metrics, row.error) for row in rows(tmp_path / name)]
        for name in ("one.db", "two.db")
    )
    assert one == two


def test_progress_counts_every_point_once(small, tmp_path):
    seen = []
    sweep(small, tmp_path / "s.db", on_point=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (24, 24)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def command(spec, store, *more):
    return [
        sys.executable,
        "-m",
        "sparseloom.cli",
        "sweep",
        str(spec),
        "--store",
        str(store),
        *more,
    ]


@pytest.fixture
def slow(tmp_path):
    """Return a file of 40 points that take long enough to be killed among them."""
    spec = {
        "workloads": [{"source": "resnet9", "options": {"image": 32}}],
        "archs": [{"base": "sat-vcu1525", "parameters": {"rows": list(range(4, 44))}}],
    }
    path = tmp_path / "slow.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def counted(path):
    if not path.is_file():
        return 0
    with sqlite3.connect(path) as connection:
        try:
            return connection.execute("SELECT COUNT(*) FROM points").fetchone()[0]
        except sqlite3.OperationalError:  # the tables are not there yet
            return 0


@pytest.mark.slow
def test_kill_at_any_moment_loses_only_points_in_flight(slow, tmp_path):
    """SIGKILL amid a sweep: what was stored stays, a rerun computes exactly the rest."""
    store = tmp_path / "s.db"
    process = subprocess.Popen(command(slow, store), cwd=ROOT)
    while counted(store) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = counted(store)
    assert 5 <= kept < 40
    again = sweep(slow, store)
    assert (again.cached, again.computed) == (kept, 40 - kept)
    assert counted(store) == 40


@pytest.mark.slow
def test_two_sweeps_share_a_store(slow, tmp_path):
    """Two processes sweep the same points into one file at the same time: each point once."""
    store = tmp_path / "s.db"
    both = [subprocess.Popen(command(slow, store), cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    found = rows(store)
    assert len(found) == len({row.digest for row in found}) == 40
    assert not [row.error for row in found if row.error]


@pytest.mark.slow
def test_a_dead_process_pool_says_how_to_go_on(slow, tmp_path):
    """Killing the workers of a local sweep is one sentence and exit code 1; a rerun finishes."""
    store = tmp_path / "s.db"
    process = subprocess.Popen(
        command(slow, store, "--jobs", "2"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while counted(store) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    listing = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    workers = [int(line.split()[0]) for line in listing.splitlines() if "spawn_main" in line]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The workers are gone" in error
    assert "run the same command again" in error
    kept = counted(store)
    assert kept < 40
    assert sweep(slow, store).cached == kept


@pytest.mark.slow
def test_a_dask_cluster_survives_the_death_of_a_worker(slow, tmp_path):
    """40 points on two worker processes, one killed amid them: all are found, as locally."""
    from distributed import LocalCluster  # slow to import, and for this test alone

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        killed: list[int] = []

        def kill_one(done, total):
            if done >= 6 and not killed:
                worker = next(iter(cluster.workers.values()))
                killed.append(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)

        done = sweep(slow, tmp_path / "d.db", dask=cluster.scheduler_address, on_point=kill_one)
    assert killed
    assert (done.computed, done.failed) == (40, 0)
    sweep(slow, tmp_path / "l.db")
    on_cluster, locally = (
        [(row.digest, row.metrics) for row in rows(tmp_path / name)] for name in ("d.db", "l.db")
    )
    assert on_cluster == locally


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # its pipes stay open
def test_a_sweep_starts_the_jobs_of_a_queue(small, tmp_path, monkeypatch):
    """slurm:2 runs on two jobs; here the queue is dask-jobqueue's own, of local processes."""
    from dask import config
    from dask_jobqueue.local import LocalCluster

    def queue():
        job = {"cores": 1, "processes": 1, "memory": "1GB", "log_directory": str(tmp_path / "log")}
        return LocalCluster(**job, scheduler_options={"dashboard_address": ":0"})

    monkeypatch.setattr("dask_jobqueue.slurm.SLURMCluster", queue)
    with config.set({"jobqueue.slurm.cores": 1, "jobqueue.slurm.memory": "1GB"}):
        done = sweep(small, tmp_path / "q.db", dask="slurm:2")
    assert (done.points, done.computed) == (24, 24)


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        ("slurm:none", "a number of jobs, such as slurm:4, not slurm:none"),
        ("slurm:0", "a number of jobs, such as slurm:4, not slurm:0"),
        ("slurm:2", "Slurm jobs need jobqueue.slurm.cores in Dask's configuration"),
    ],
)
def test_slurm_jobs_that_cannot_be_are_one_sentence(small, tmp_path, cluster, sentence):
    with pytest.raises(ValueError, match=sentence):
        sweep(small, tmp_path / "s.db", dask=cluster)
    assert not list(tmp_path.glob("s.db*"))


def test_a_cluster_that_does_not_answer_is_one_sentence_and_makes_no_store(small, tmp_path):
    with pytest.raises(ExecutorLost, match=r"No Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        sweep(small, tmp_path / "s.db", dask="tcp://127.0.0.1:9")
    assert not list(tmp_path.glob("s.db*"))


def test_a_store_that_cannot_be_is_refused_before_any_cluster_is_asked(small, tmp_path):
    with pytest.raises(ValueError, match="is a folder; a store is a file"):
        sweep(small, tmp_path, dask="tcp://127.0.0.1:9")


def test_jobs_below_one_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match="needs at least 1 job, not 0"):
        sweep(small, tmp_path / "s.db", jobs=0)
    assert not list(tmp_path.glob("s.db*"))


def test_evolution_resumes_and_respects_constraints(small, tmp_path):
    """NSGA-II finds the same points whether it ran through or starts again from the store."""
    small["archs"][0]["parameters"]["rows"] = [1, 2, 3, 4, 5, 6]
    small["sampler"] = {"kind": "nsga2", "points": 40, "seed": 7}
    small["constraints"] = [{"metric": "multipliers", "at_most": 12}]
    through = sweep(small, tmp_path / "a.db")
    again = sweep(small, tmp_path / "a.db")
    assert again.computed == 0
    assert 0 < through.points <= 40
    with open_store(tmp_path / "a.db") as store:
        (group,) = summarise(store).groups
    assert group.front
    assert all(row["multipliers"] <= 12 for row in group.front)


def brute_force_front(values):
    return [
        not any((other <= row).all() and (other < row).any() for other in values) for row in values
    ]


@pytest.mark.parametrize("seed", range(20))
def test_pareto_front_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (rng.integers(1, 40), rng.integers(1, 4))).astype(float)
    assert pareto_front(values).tolist() == brute_force_front(values)


def test_summary_finds_front_and_best_within_the_constraints(small, tmp_path):
    small["constraints"] = [
        {"metric": "multipliers", "at_most": 8},
        {"metric": "utilisation", "at_least": 0.01},
    ]
    sweep(small, tmp_path / "s.db")
    with open_store(tmp_path / "s.db") as store:
        found = summarise(store)
        frame = to_dataframe(store)
    (group,) = found.groups
    assert (found.finished, sum(found.failures.values())) == (16, 8)
    assert len(group.rows) == 16
    good = frame[(frame.multipliers <= 8) & (frame.utilisation >= 0.01)]
    assert len(group.allowed) == len(good)
    assert group.best["cycles"]["cycles"] == good.cycles.min()
    wanted = brute_force_front(good[["cycles", "multipliers"]].to_numpy())
    assert {row["digest"] for row in group.front} == set(good.digest[wanted])


def test_points_of_another_machine_file_are_other_points(small, tmp_path):
    """A machine file counts by its content, so an edited one is computed anew."""
    machine = tmp_path / "machine.yaml"
    machine.write_text("base: nm-tiny\nparameters: {vector_lanes: 2}\n")
    small["archs"] = [{"base": str(machine), "parameters": {"rows": [2]}}]
    point = Space.of(read_spec(small)).point(0)
    same = Space.of(read_spec(small)).point(0)
    assert point.key() == same.key()
    small["archs"][0]["parameters"] = {"rows": [3]}
    assert Space.of(read_spec(small)).point(0).key() != point.key()


def test_mapper_and_what_it_minimises_are_part_of_a_point(small, tmp_path):
    """The same machines mapped otherwise are other points, and each names how it was mapped."""
    store = tmp_path / "points.db"
    for changes in ({}, {"mapper": "greedy"}, {"mapper": "greedy", "minimise": "energy"}):
        done = sweep({**small, **changes}, store)
        assert done.cached == 0
    with open_store(store) as opened:
        rows = [row for row in opened.rows() if row.metrics]
    ways = {(row.point["mapper"], row.point["minimise"]) for row in rows}
    assert ways == {("exhaustive", "cycles"), ("greedy", "cycles"), ("greedy", "energy")}
    cycles = dict.fromkeys(ways, 0)
    for row in rows:
        cycles[row.point["mapper"], row.point["minimise"]] += row.metrics["cycles"]
    assert cycles["exhaustive", "cycles"] <= cycles["greedy", "cycles"]


def test_an_interrupt_keeps_every_finished_point(small, tmp_path, monkeypatch):
    """Ctrl-C in the sixth point: five are stored, the sentence says so, a rerun does the rest.

    Of the five the last two have not been handed over yet when it comes.
    """
    finished = []

    def interrupted(points):
        if len(finished) == 5:
            raise KeyboardInterrupt
        finished.extend(points)
        return evaluate(points)

    monkeypatch.setattr("sparseloom.sweeps.run.evaluate", interrupted)
    sentence = r"^5 of 24 points are in '.*s\.db': run the same command again to go on from there$"
    with pytest.raises(SweepInterrupted, match=sentence):
        sweep(small, tmp_path / "s.db")
    monkeypatch.undo()
    again = sweep(small, tmp_path / "s.db")
    assert (again.cached, again.computed) == (5, 19)


def test_workers_leave_interrupts_to_whoever_feeds_them():
    """A terminal interrupts all processes; what workers are at is finished and kept."""
    with executor(2) as (pool, _):
        assert pool.submit(signal.getsignal, signal.SIGINT).result() is signal.SIG_IGN


@pytest.mark.slow
def test_the_keyboard_stops_processes_with_a_way_to_go_on(slow, tmp_path):
    """SIGINT to the whole group, as a terminal sends it: exit 130, what is said is stored."""
    store = tmp_path / "s.db"
    process = subprocess.Popen(
        command(slow, store, "--jobs", "2"),
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while counted(store) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    kept = counted(store)
    assert f"{kept} of 40 points are in {str(store)!r}: run the same command again" in error
    assert "Traceback" not in error
    assert 2 <= kept < 40


def test_the_best_of_equals_is_best_in_the_other_objectives(small, tmp_path):
    """Overlap does not change the number of multipliers: of the smallest arrays the fastest."""
    sweep(small, tmp_path / "s.db")
    with open_store(tmp_path / "s.db") as store:
        summary = summarise(store)
    (group,) = summary.groups
    best = group.best["multipliers"]
    equals = [row for row in group.rows if row["multipliers"] == best["multipliers"]]
    assert len(equals) == 4
    assert best["cycles"] == min(row["cycles"] for row in equals)
    (table, _) = sweep_tables(summary)[0][1]
    assert table.rows[1][:3] == ("multipliers", "4", "3")


def test_unmet_constraints_are_named(small, tmp_path):
    """Where no point meets all constraints, the table says which exclude how many."""
    small["constraints"] = [
        {"metric": "multipliers", "at_most": 3},
        {"metric": "utilisation", "at_least": 0.0001},
    ]
    sweep(small, tmp_path / "s.db")
    with open_store(tmp_path / "s.db") as store:
        ((_, (table,)),) = sweep_tables(summarise(store))
    assert table.title == "None of 16 points meets all constraints"
    assert table.rows[0] == ("multipliers <= 3", "0", "4")
    assert table.rows[1][:2] == ("utilisation >= 0.0001", "16")


def test_causes_of_a_point_sum_to_its_cycles(small, tmp_path):
    """What a design compares says where every cycle of a stored point goes."""
    sweep(small, tmp_path / "s.db")
    space = Space.of(read_spec(small))
    points = {point.key(): point for point in map(space.point, range(len(space)))}
    for row in rows(tmp_path / "s.db"):
        if row.metrics:
            found = causes(points[row.digest])
            assert sum(found.values()) == row.metrics["cycles"]
            assert sum(map(bool, found.values())) > 2
