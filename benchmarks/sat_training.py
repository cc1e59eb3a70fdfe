"""The SAT training study, and how long one training step takes to map and simulate.

Run as `python benchmarks/sat_training.py`. Times are wall-clock seconds after imports, the best of
three, one thread; the ratio is to numpy's product time as in first_light.py.
"""

import time

from first_light import best_seconds, numpy_macs_per_s
from rich.console import Console

import sparseloom as sl
from sparseloom import studies
from sparseloom.studies import tables
from sparseloom.studies.training import training_step
from sparseloom.tables import study_table

RESNET50 = next(n for n in studies.NETWORKS if n.title == "ResNet-50")
BATCH = 64


def time_one_step() -> None:
    """Print the time of one ResNet-50 step: its graph, then mapping and simulation."""
    machine = sl.arch("sat-vcu1525")
    step = training_step(RESNET50, studies.BDWP, batch=BATCH)
    sl.simulate(step, machine)  # first use of a library pays its own start-up
    graph = best_seconds(lambda: training_step(RESNET50, studies.BDWP, batch=BATCH))
    seconds = best_seconds(lambda: sl.simulate(step, machine))
    ratio = seconds / (step.macs / numpy_macs_per_s())
    print(
        f"{RESNET50}, batch {BATCH}, {studies.BDWP}: graph in {graph:.3f} s, map and simulate in "
        f"{seconds:.3f} s, {ratio:.4f} of numpy's product time"
    )


def main() -> None:
    """Print the study's tables and its time, then that of one step."""
    began = time.perf_counter()
    study = studies.train(batch=BATCH)
    worths = studies.optimisations(study)
    effects = studies.sensitivity(study)
    seconds = time.perf_counter() - began
    console = Console(width=110, highlight=False)
    for table in (
        tables.by_network(study),
        tables.by_variant(study, studies.METHODS, "Speed-up by method"),
        tables.by_variant(study, studies.PATTERNS, "Speed-up by pattern"),
        tables.by_optimisation(worths),
        tables.by_setting(effects),
    ):
        console.print(study_table(table))
    for sentence in studies.conclude(study, effects):
        console.print(sentence)
    print(f"whole study in {seconds:.1f} s")
    time_one_step()


if __name__ == "__main__":
    main()
