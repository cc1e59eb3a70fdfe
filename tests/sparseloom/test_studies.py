"""The training study: its parts equal separate runs, its figures keep to their bounds."""

from dataclasses import replace

import pytest

import sparseloom as sl
from simulator.arch.load import read_arch_file
from sparseloom.ablation import ablate
from sparseloom.studies import (
    ASSUMPTIONS,
    BDWP,
    DENSE,
    METHODS,
    NETWORKS,
    PATTERNS,
    Effect,
    conclude,
    optimisations,
    sensitivity,
    train,
)
from sparseloom.studies import conclusion as words
from sparseloom.studies.tables import by_network, by_optimisation, by_setting, by_variant
from sparseloom.studies.together import cycles_together, simulate_together
from sparseloom.studies.training import mac_bound, training_step

BATCH = 2
NETWORK = NETWORKS[0]


@pytest.fixture(scope="module")
def study():
    """Return ResNet-9 by every method and in every pattern."""
    return train((NETWORK,), batch=BATCH)


@pytest.fixture(scope="module")
def effects(study):
    """Return what a product's, a stream's and the work's assumptions do."""
    chosen = (a for a in ASSUMPTIONS if a.name in ("array size", "vector lanes", "buffers"))
    return sensitivity(study, tuple(replace(a, settings=a.settings[:1]) for a in chosen))


@pytest.fixture(scope="module")
def alone(study):
    """Return the ablation of the one network."""
    cycles = study.results[NETWORK, BDWP].cycles
    return ablate(study.graphs[NETWORK, BDWP], study.arch, cycles)


def changed(study, **overrides):
    """Return the speed-up on a machine with `overrides`, every step mapped alone and whole."""
    machine = sl.arch(study.arch, **overrides)
    dense, sparse = (sl.simulate(study.graphs[NETWORK, v], machine).cycles for v in (DENSE, BDWP))
    return dense / sparse


def test_results_together_equal_separate_ones(study):
    """Mapping workloads together changes neither cycles nor events nor records."""
    for variant in (DENSE, BDWP):
        alone = sl.simulate(study.graphs[NETWORK, variant], study.arch)
        together = study.results[NETWORK, variant]
        assert together.cycles == alone.cycles
        assert together.counts == alone.counts
        assert (together.per_op == alone.per_op).all()
        assert together.notes == alone.notes


def test_cycles_together_are_the_results_cycles(study):
    """The short way to cycles and the long way agree."""
    found = cycles_together(study.graphs, study.arch)
    assert found == {case: result.cycles for case, result in study.results.items()}


def test_workloads_of_one_name_stay_apart():
    """Two graphs of the same network keep their own results."""
    machine = sl.arch("sat-vcu1525")
    graphs = {b: training_step(NETWORK, BDWP, batch=b) for b in (1, 2)}
    found = simulate_together(graphs, machine)
    assert found[2].macs_dense == 2 * found[1].macs_dense


def test_run_and_study_take_the_same_cycles(study):
    """`run --phase train` and the study see the same training step."""
    run = sl.run(
        "resnet9", arch="sat-vcu1525", phase="train", sparsity="2:8", baseline="dense", batch=BATCH
    )
    assert run.result.cycles == study.results[NETWORK, BDWP].cycles
    assert run.speedup == study.speedup(NETWORK).speedup


def test_speed_up_stays_below_its_bound(study):
    """No variant beats what its products allow, and no bound beats equal sparse products."""
    ideal = {"2:4": 3 / 2, "2:8": 2, "1:8": 3 / (2 / 8 + 1), "2:16": 3 / (2 / 8 + 1)}
    for variant in PATTERNS:
        row = study.speedup(NETWORK, variant)
        assert 1 < row.speedup < row.bound < ideal[variant.pattern]


def test_finer_and_sparser_patterns_are_faster(study):
    """Less density never costs speed."""
    two_four, two_eight, one_eight, two_sixteen = map(study.average, PATTERNS)
    assert two_four < two_eight < min(one_eight, two_sixteen)


def test_methods_order_as_their_sparse_passes_do(study):
    """One sparse pass buys something, two buy more."""
    dense, ste, sdgp, bdwp = map(study.average, METHODS)
    assert dense == 1
    assert dense < min(ste, sdgp)
    assert max(ste, sdgp) < bdwp


def test_bound_counts_products_by_hand():
    """A 2:8 layer in FF and BP, dense WU, and a dense first layer without BP."""
    step = training_step(NETWORK, BDWP, batch=1)
    macs = {op.name: op.macs for op in step.gemm_ops}
    first = macs["conv1.ff"] + macs["conv1.wu"]
    dense = sum(n for name, n in macs.items() if name.endswith(".wu")) - macs["conv1.wu"]
    sparse = sum(macs.values()) - first - dense
    left = first + dense + sparse / 4
    assert mac_bound(step, sl.arch("sat-vcu1525")) == pytest.approx(sum(macs.values()) / left)


def test_bound_of_an_array_without_skipping_is_one():
    """An array that cannot take a group of 8 gains nothing from 2:8."""
    arch = sl.arch("sat-vcu1525", max_m=4)
    assert mac_bound(training_step(NETWORK, BDWP, batch=1), arch) == 1


def test_small_networks_outside_the_average_run_two_variants():
    """A network that counts in no average runs dense and BDWP 2:8 alone."""
    apart = replace(NETWORK, averaged=False)
    found = train((apart,), batch=1)
    assert {variant for _, variant in found.results} == {DENSE, BDWP}
    assert found.averaged == ()


def test_every_assumed_number_is_varied():
    """The study leaves no assumption of the preset out."""
    sources = read_arch_file("sat-vcu1525").sources
    assumed = {key for key, source in sources.items() if source.startswith("assumed")}
    varied = {key for assumption in ASSUMPTIONS for key in assumption.keys}
    assert assumed - varied == set()
    assert varied - set(sources) == set()


def test_sensitivity_equals_whole_runs_on_the_changed_machine(study, effects):
    """What is not mapped again would have come out the same."""
    found = {(e.name, e.setting): e.average for e in effects}
    assert found["array size", "16 x 16"] == changed(study, rows=16, cols=16)
    assert found["vector lanes", "16"] == changed(study, vector_lanes=16)
    small = {"capacity_bytes": 2**19}
    buffers = dict.fromkeys(("act_buffer", "weight_buffer", "out_buffer"), small)
    assert found["buffers", "512 KiB each"] == changed(study, **buffers)


@pytest.mark.parametrize("assumption", ASSUMPTIONS, ids=lambda a: a.name)
def test_an_assumption_touches_what_it_says(study, assumption):
    """Products feel no assumption about streams, and streams none about products."""
    if assumption.touches == "both":
        return
    rows = study.results[NETWORK, BDWP].per_op
    rest = (rows["macs_dense"] > 0) == (assumption.touches == "streams")
    _, overrides = assumption.settings[0]
    other = sl.simulate(study.graphs[NETWORK, BDWP], sl.arch(study.arch, **overrides)).per_op
    assert (other["cycles"][rest] == rows["cycles"][rest]).all()


def test_folded_batch_norms_equal_whole_runs_without_them(study, effects):
    """The average without batch norms is that of steps that have none."""
    cycles = [
        sl.simulate(training_step(NETWORK, v, batch=BATCH, batch_norms=False), study.arch).cycles
        for v in (DENSE, BDWP)
    ]
    folded = next(e.average for e in effects if e.setting == "folded")
    assert folded == cycles[0] / cycles[1]
    assert folded > study.average()


def test_hidden_vector_work_leaves_array_and_updates(study, effects):
    """Without vector work the speed-up lies between the step's and its bound."""
    hidden = next(e.average for e in effects if e.setting == "overlaps the array")
    assert study.average() < hidden < study.average_bound()


def test_effects_come_largest_first(study, effects):
    """A tornado has its widest bar on top."""
    changes = [abs(e.change) for e in effects]
    assert changes == sorted(changes, reverse=True)
    assert all(e.change == e.average / study.average() - 1 for e in effects)


def test_optimisations_equal_the_ablation_of_one_network(study, alone):
    """Ablating networks together is ablating each."""
    assert optimisations(study) == {NETWORK: alone}


def effect(name, average, change):
    return Effect(name=name, setting="other", average=average, change=change)


def test_verdict_names_the_closest_setting_only_when_off(study, monkeypatch):
    """Within the tolerance nothing has to be explained; beyond it one assumption is named."""
    found = (effect("far", 3.0, 0.5), effect("near", 1.8, -0.1))
    monkeypatch.setattr(words, "PUBLISHED", study.average())
    assert words.verdict(study, found) == ("within 5%: no assumption has to carry the difference")
    monkeypatch.setattr(words, "PUBLISHED", 1.75 * 0.9)
    assert "near (other) brings it closest, to 1.80x" in words.verdict(study, found, 0.0)
    assert words.verdict(study, (), 0.0) == "off by more than 0%"


def test_conclusion_is_made_of_the_data(study):
    """Large and small effects are told apart, and the figures are the study's."""
    told = conclude(study, (effect("large", 1.2, -0.3), effect("small", 1.8, 0.001)))
    assert f"{study.average():.2f}x as fast" in told[0]
    assert f"{study.average_bound():.2f}x" in told[1]
    assert told[2] == "What moves the average most: large (other) -30.0%."
    assert told[3] == "Less than 1%, whatever the setting tried: small."


def test_tables_hold_the_study(study, effects, alone):
    """Every table has a row for each of its subjects."""
    assert by_network(study).rows[-1][3] == study.average()
    assert [row[0] for row in by_variant(study, PATTERNS, "").rows] == [str(v) for v in PATTERNS]
    assert by_optimisation({NETWORK: alone}).rows[0][1] == alone[0].worth
    frame = by_setting(effects).to_dataframe()
    assert list(frame["average"]) == [e.average for e in effects]
