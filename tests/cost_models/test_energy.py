"""Energy tables: literal published values, sources, errors."""

import pytest

from cost_models.energy import DRAM, HOROWITZ_45NM, SRAM_MACROS, EnergyTable, Entry, MissingPrice


def test_horowitz_table_holds_the_published_values():
    published = {
        "int8_add": 0.03,
        "int32_add": 0.1,
        "int8_mul": 0.2,
        "int32_mul": 3.1,
        "fp16_add": 0.4,
        "fp16_mul": 1.1,
        "fp32_add": 0.9,
        "fp32_mul": 3.7,
        "sram_8KiB_64b": 10,
        "sram_32KiB_64b": 20,
        "sram_1MiB_64b": 100,
    }
    assert {name: HOROWITZ_45NM.entry(name).pj for name in published} == published
    assert HOROWITZ_45NM.node_nm == 45


def test_every_entry_cites_its_source():
    entries = [*HOROWITZ_45NM.entries_pj.values(), *DRAM.values()]
    assert all(len(entry.source) > 20 for entry in entries)


def test_dram_default_is_the_midpoint_of_the_published_range():
    assert HOROWITZ_45NM.entry("dram_bit").pj * 64 == (1300 + 2600) / 2


@pytest.mark.parametrize(
    ("kind", "pj"), [("lpddr4", 8), ("ddr3", 70), ("hbm2", 6.25), ("hbm3", 4.05)]
)
def test_with_dram_replaces_main_memory_only(kind, pj):
    table = HOROWITZ_45NM.with_dram(kind)
    assert table.entry("dram_bit").pj == pj
    assert table.entry("int8_mul") == HOROWITZ_45NM.entry("int8_mul")
    assert kind in table.name
    assert table.digest() != HOROWITZ_45NM.digest()


def test_with_dram_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="Unknown DRAM 'ddr9'; known: horowitz, lpddr4, ddr3"):
        HOROWITZ_45NM.with_dram("ddr9")


def test_entry_missing_action_lists_the_known():
    with pytest.raises(
        MissingPrice, match=r"'horowitz-45nm' has no action 'fp8_mul'; known: dram_bit"
    ):
        HOROWITZ_45NM.entry("fp8_mul")


def test_entry_without_source_is_refused():
    with pytest.raises(ValueError, match=r"An energy of 1\.0 pJ must cite its source"):
        Entry(pj=1.0, source="")


@pytest.mark.parametrize("pj", [-1.0, float("nan"), float("inf")])
def test_entry_impossible_energy_is_refused(pj):
    with pytest.raises(ValueError, match="must be a finite number of at least 0 pJ"):
        Entry(pj=pj, source="a test")


def test_sram_macros_grow_in_capacity_and_energy():
    capacities = [capacity for capacity, _ in SRAM_MACROS]
    energies = [HOROWITZ_45NM.entry(action).pj for _, action in SRAM_MACROS]
    assert capacities == sorted(capacities)
    assert energies == sorted(energies)


def test_table_owns_its_entries():
    entries = {"int8_mul": Entry(pj=0.2, source="a test of ownership")}
    table = EnergyTable(name="t", node_nm=7, vdd_v=0.7, entries_pj=entries, source="test")
    entries.clear()
    assert table.entry("int8_mul").pj == 0.2
