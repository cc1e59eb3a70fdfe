"""Device tables, placement files and what is said about them when they are wrong."""

from dataclasses import replace

import pytest

from mapping.linear import Model, Row, Variable
from mapping.placer import (
    DEVICES,
    SPECS,
    InfeasiblePlacement,
    Status,
    load_device,
    load_problem,
    place,
    slots,
)
from mapping.placer import sites as sites_module
from mapping.placer.check import check_sites, check_slots
from mapping.placer.device import Granularity, Resource
from mapping.placer.layout import coarsen, layout
from mapping.placer.problem import Caps, Chain, Grid, Net, Objective, Problem, Unit
from mapping.placer.sites import Part, SitesProblem
from mapping.solver import Solution, solve

U280 = load_device("u280")


def units(count, **demand):
    """Return equal units."""
    return tuple(Unit(name=f"u{n}", kind="unit", **demand) for n in range(count))


def narrow(name):
    """Return a device with its two leftmost bands only."""
    device = load_device(name)
    slrs = tuple(replace(slr, luts=slr.luts[:2]) for slr in device.slrs)
    return replace(device, bands=device.bands[:2], slrs=slrs)


def few(name, count):
    """Return the problem of a few RapidLayout units on a narrow device."""
    return replace(load_problem("rapidlayout"), device=narrow(name), count=count)


def problem(made, **changes):
    """Return a problem on the U280, two slots in an SLR."""
    settings = {"device": U280, "grid": Grid(columns=2), "crossing_wires": 1000, **changes}
    return Problem(name="p", units=tuple(made), **settings)


# Devices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slrs", "totals"),
    [
        ("u250", 4, (12288, 5376, 1280, 1728000)),
        ("u280", 3, (9024, 4032, 960, 1303680)),
        ("vu9p", 3, (6840, 4320, 960, 1182240)),
        ("vu11p", 3, (9216, 4032, 960, 1296000)),
        ("vhk158", 4, (7392, 5080, 1300, 1753984)),
    ],
)
def test_device_totals_are_the_published_ones(name, slrs, totals):
    """Columns times sites add up to published totals (VHK158: rounded down to whole shares)."""
    device = load_device(name)
    assert tuple(device.totals().values()) == totals
    assert len(device.slrs) == slrs


def test_a_board_has_its_device():
    """The VCU1525 carries a VU9P; unknown names list boards as well."""
    assert load_device("vcu1525") == load_device("vu9p")
    sentence = r"Unknown device 'vcu152'; known: .*, vcu1525 \(did you mean 'vcu1525'\?\)"
    with pytest.raises(ValueError, match=sentence):
        load_device("vcu152")


def test_u280_bottom_slr_is_the_smaller():
    """SLR totals of the U280: 2880, 3072, 3072 DSP and 439,680, 432,000, 432,000 LUT."""
    assert [U280.total(Resource.DSP, s) for s in range(3)] == [2880, 3072, 3072]
    assert [U280.total(Resource.LUT, s) for s in range(3)] == [439680, 432000, 432000]


def test_column_order_is_the_published_string():
    """Bands in a row spell RapidLayout's column order of VU11P and VU37P."""
    published = "DBBDDDBDU DDBDBDDDDBBDDU DBDBDU DDBDBDU DDDDBDU DDDDDBBD".replace(" ", "")
    for name in ("vu11p", "u280", "u250"):
        assert "".join(load_device(name).bands) == published


def test_every_device_says_how_much_of_it_is_known():
    """Granularity is stated, and every part of a table names a source."""
    known = {name: load_device(name).granularity for name in DEVICES}
    assert known["vu9p"] is Granularity.HALVES
    assert known["vhk158"] is Granularity.TOTALS
    assert {known[name] for name in ("u250", "u280", "vu11p")} == {Granularity.COLUMNS}
    assert all(all(load_device(name).sources.values()) for name in DEVICES)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bands": ("DX",)}, "A band is a string of D, B and U, not 'DX'"),
        ({"bands": ("D",)}, "An SLR needs LUTs of 1 bands, not 8"),
        ({"sources": {}}, "Device u280 names no source of bands"),
    ],
)
def test_device_table_errors(change, sentence):
    """A table that contradicts itself is refused with one sentence."""
    with pytest.raises(ValueError, match=sentence):
        replace(U280, **change)


# Layout ------------------------------------------------------------------------------------------


def test_slots_of_an_slr_add_up_to_it():
    """Slots of any grid hold together what their SLR holds; lacking sites are at the bottom."""
    for columns, rows in ((1, 1), (2, 1), (4, 2), (8, 4)):
        grid = layout(problem(units(1), grid=Grid(columns=columns, rows=rows)))
        for resource in Resource:
            for slr in range(3):
                held = sum(s.capacity[resource] for s in grid.slots if s.slrs == (slr,))
                assert held == U280.total(resource, slr)
    bottom = [s for s in grid.slots if s.slrs == (0,) and s.x == 0]
    assert [s.capacity[Resource.DSP] for s in bottom] == [4 * 18, 4 * 24, 4 * 24, 4 * 24]


def test_autobridge_slots_of_the_u280():
    """The left slot of an upper SLR has AutoBridge's 1536 DSP, 768 RAMB18, 216,960 LUT."""
    slot = layout(problem(units(1))).slots[2]
    assert [slot.capacity[r] for r in Resource] == [1536, 768, 128, 216960]


def test_coarse_layout_keeps_totals_and_chosen_lines():
    """Joining slots adds them up; only the chosen line is left."""
    fine = layout(problem(units(1, dsp=100), grid=Grid(columns=2, rows=2)))
    line = next(line for line in fine.lines if line.boundary == 1)
    coarse = coarsen(fine, [line])
    assert len(coarse.slots) == 2
    assert [s.slrs for s in coarse.slots] == [(0, 1), (2,)]
    for resource in Resource:
        whole = sum(s.capacity[resource] for s in fine.slots)
        assert sum(s.capacity[resource] for s in coarse.slots) == whole
    assert [n.boundary for n in coarse.lines] == [1]


# Placements --------------------------------------------------------------------------------------


def test_chains_of_two_lengths_get_sites_of_their_own():
    """Chains of mixed lengths are laid whole, in the columns of their unit's slot."""
    made = units(6, chains=(Chain(length=50, count=8), Chain(length=20, count=8)))
    asked = problem(made, nets=(Net(source="u0", sink="u5", bits=8),))
    done = place(asked)
    assert done.status is Status.OPTIMAL
    assert check_slots(asked, done) == []
    assert sum(len(spots) for spots in done.spots.values()) == 6 * 16


def test_crossings_are_counted_with_two_registers_a_wire():
    """Two units pinned two SLRs apart: wires cross both boundaries, two registers on each."""
    made = (Unit(name="a", kind="u", slr=0), Unit(name="b", kind="u", slr=2))
    asked = problem(
        made,
        nets=(Net(source="a", sink="b", bits=100),),
        objective=Objective(across=1, along=2, crossing=0.5),
    )
    done = place(asked)
    assert done.crossing_wires == (100, 100)
    assert done.crossing_registers == 400
    assert done.objective == 100 * 2 * 2.5
    assert done.gap == 0


def test_time_limit_gives_an_incumbent_with_an_honest_gap():
    """Out of time the status is feasible, not optimal, and the bound stays below the cost."""
    asked = load_problem("systolic32")
    done = place(asked, time_limit_s=3)
    assert done.status is Status.FEASIBLE
    assert 0 < done.gap < 1
    assert done.bound < done.objective
    assert check_slots(asked, done) == []


def test_gap_of_a_free_placement_is_zero():
    """Without nets there is nothing to pay and nothing to prove."""
    done = place(problem(units(3, dsp=10)))
    assert (done.objective, done.gap, done.placed) == (0, 0, 3)


def test_rapidlayout_fills_a_vu11p():
    """480 units: 93.75 % of DSP, 95.2 % of RAMB18, all URAM, on sites of their own."""
    asked = load_problem("rapidlayout")
    done = place(asked)
    assert done.placed == 480
    assert done.status is Status.OPTIMAL
    assert done.gap == pytest.approx(0, abs=1e-9)
    assert check_sites(asked, done) == []
    share = done.summary()["utilisation"]
    assert (share["dsp"], share["uram"]) == (0.9375, 1.0)
    assert round(share["bram"], 3) == 0.952
    by_slr = [sum(slot[0] == slr for slot in done.slots.values()) for slr in range(3)]
    assert by_slr == [160, 160, 160]


def test_fewer_units_than_fit_are_placed_in_any_slrs():
    """Equal SLRs share the units; unequal ones are decided by one program."""
    for device in ("vu11p", "u280"):
        asked = few(device, 8)
        done = place(asked)
        assert done.placed == 8
        assert check_sites(asked, done) == []


@pytest.mark.long
def test_systolic32_is_within_a_percent_in_a_minute():
    """The 2 x 3 slots of the U280: gap of 1 % at most in 60 s."""
    asked = load_problem("systolic32")
    done = place(asked, time_limit_s=60)
    assert done.gap <= 0.01
    assert check_slots(asked, done) == []


# The checker can say no ------------------------------------------------------------------------


def test_checker_finds_every_kind_of_mistake():
    """A placement that is tampered with is refused for the right reason."""
    made = (*units(2, chains=(Chain(length=60),)), Unit(name="v", kind="v", uram=100, slr=1))
    asked = problem(made, nets=(Net(source="u0", sink="v", bits=9),))
    done = place(asked)
    assert check_slots(asked, done) == []
    spot = done.spots["u0"][0]
    other = replace(spot, first=0)
    u0, u1 = done.slots["u0"], done.slots["u1"]
    for changes, reason in (
        ({"slots": {**done.slots, "v": (0, 0, 0)}}, "pinned to SLR 1"),
        ({"slots": {"u0": u0, "u1": u1}}, "other units"),
        ({"objective": done.objective + 1}, "objective is"),
        ({"bound": done.objective + 1}, "bound is above"),
        ({"crossing_wires": (5, 5)}, "Crossing wires are"),
        ({"spots": {**done.spots, "u0": ()}}, "does not have its chains"),
        ({"spots": {"u0": (other,), "u1": (other,)}}, "used twice"),
        ({"slots": {**done.slots, "u0": (u0[0], 1 - u0[1], 0)}}, "outside its slot's columns"),
    ):
        assert any(reason in wrong for wrong in check_slots(asked, replace(done, **changes))), (
            reason
        )


def test_site_checker_finds_every_kind_of_mistake():
    """Incomplete units, wrong columns, sites past the end and missing units are found."""
    asked = few("vu11p", 2)
    done = place(asked)
    spots = done.spots["conv_0"]
    uram = next(s for s in spots if s.resource is Resource.URAM)

    def moved(**changes):
        kept = tuple(s for s in spots if s is not uram)
        return {**done.spots, "conv_0": (*kept, replace(uram, **changes))}

    for changes, reason in (
        ({"spots": moved(column=0)}, "in a column of something else"),
        ({"spots": moved(first=63)}, "leaves column"),
        ({"spots": moved(slr=2 if uram.slr != 2 else 0)}, "in several SLRs"),
        ({"spots": {**done.spots, "conv_0": spots[1:]}}, "does not have the parts"),
        ({"slots": dict(list(done.slots.items())[:1])}, "1 units are placed, not 2"),
        ({"objective": done.objective * 1.01}, "objective is"),
    ):
        assert any(reason in wrong for wrong in check_sites(asked, replace(done, **changes))), (
            reason
        )


# Infeasible --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "changes", "sentence"),
    [
        (
            units(3, uram=400),
            {},
            r"p does not fit on u280: URAM of all slots: needs 1,200, has 960, 240 too few",
        ),
        (
            units(1, bram=800),
            {},
            r"BRAM of the largest slot for unit 'u0': needs 800, has 768, 32 too few",
        ),
        (
            units(7, dsp=1100),
            {"caps": Caps(dsp=0.9)},
            r"DSP in slot x\d y\d: needs 2,200, has 1,382, 818 too few",
        ),
        (
            units(1, chains=(Chain(length=97),)),
            {},
            r"chains of 97 DSP in SLR \d, columns \d+ to \d+: needs 1, has 0, 1 too few",
        ),
        (
            (*units(1, uram=128, slr=0), Unit(name="v", kind="v", uram=193, slr=0)),
            {},
            r"URAM of the largest slot for unit 'v': needs 193, has 192, 1 too few",
        ),
        (
            (*units(3, uram=120, slr=0),),
            {},
            r"URAM in slot x1 y0: needs 240, has 192, 48 too few",
        ),
        (
            (Unit(name="a", kind="u", slr=0), Unit(name="b", kind="u", slr=1)),
            {"nets": (Net(source="a", sink="b", bits=1001),)},
            r"wires between SLR 0 and SLR 1: needs 1,001, has 1,000, 1 too few",
        ),
        (
            units(1, chains=(Chain(length=97), Chain(length=3))),
            {},
            r"DSP sites of chains in column \d+ of SLR \d: needs 97, has 96, 1 too few",
        ),
    ],
)
def test_infeasible_names_resource_demand_limit_and_gap(made, changes, sentence):
    """The sentence says which limit is short, by how much; the report has the same numbers."""
    with pytest.raises(InfeasiblePlacement, match=sentence) as caught:
        place(problem(made, **changes))
    assert all(s.gap == s.demand - s.limit > 0 for s in caught.value.report)


def test_too_many_units_for_the_sites_name_the_scarcest_part():
    """481 RapidLayout units: URAM and chains are short, for the part that has them."""
    asked = replace(load_problem("rapidlayout"), count=481)
    with pytest.raises(
        InfeasiblePlacement, match=r"URAM for part 'image': needs 962, has 960, 2 too"
    ):
        place(asked)


def test_only_time_running_out_is_no_verdict(monkeypatch):
    """Neither a placement nor a proof within the time is a failure, not "infeasible"."""
    nothing = Solution(
        status=Status.UNKNOWN,
        values={},
        objective=float("inf"),
        bound=0.0,
        seconds=1.0,
        solver="highs",
    )
    monkeypatch.setattr(slots, "search", lambda *_args, **_kwargs: nothing)
    with pytest.raises(RuntimeError, match="p: no placement was found within 60 s"):
        place(problem(units(1)))


@pytest.mark.parametrize(("value", "held"), [(1.0, True), (0.0, False), (0.5, False), (3.0, False)])
def test_values_that_time_cut_short_are_no_solution(monkeypatch, value, held):
    """What a solver leaves behind when time runs out counts only if it keeps rows and bounds."""

    def cut(problem, *_arguments):
        problem.status, problem.sol_status = 1, 2
        for variable in problem.variables():
            variable.varValue = value
        return 0.0

    monkeypatch.setattr("mapping.solver._highs", cut)
    row = Row(family="f", label="l", terms={"x": 2.0}, low=1, high=2)
    found = solve(Model(variables={"x": Variable()}, rows=(row,), costs={"x": 1.0}))
    assert found.status is (Status.FEASIBLE if held else Status.UNKNOWN)
    assert found.values == ({"x": 1.0} if held else {})


def test_split_units_are_no_placement(monkeypatch):
    """A linear program that time ended may keep its rows with half a stack here and there."""
    real = sites_module.solve

    def halved(model, **settings):
        found = real(model, **settings)
        values = {key: value / 2 for key, value in found.values.items()}
        return replace(found, values=values, status=Status.FEASIBLE)

    monkeypatch.setattr(sites_module, "solve", halved)
    with pytest.raises(RuntimeError, match="rapidlayout: no placement was found within 60 s"):
        place(few("u280", 2))


def test_placement_counts_units_by_kind():
    """Two units with a buffer are two units, not three."""
    two = problem((*units(2), replace(units(1)[0], name="b", kind="buffer")))
    assert place(two).kinds == {"unit": 2, "buffer": 1}
    assert place(few("u280", 3)).summary()["placed_by_kind"] == {"conv": 3}


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Grid(columns=0), "Grid columns must be at least 1, not 0"),
        (lambda: Caps(lut=1.2), r"Cap lut must be above 0 and at most 1, not 1\.2"),
        (lambda: Chain(length=0), "Chain length must be at least 1, not 0"),
        (lambda: Unit(name="a", kind="a", lut=-1), "Unit 'a': lut must be at least 0, not -1"),
        (
            lambda: Net(source="a", sink="b", bits=0),
            "Net 'a' to 'b': bits must be at least 1, not 0",
        ),
        (lambda: Objective(along=-1), "Objective along must be at least 0, not -1"),
        (lambda: problem(units(1), crossing_wires=-1), "crossing_wires must be at least 0, not -1"),
        (lambda: problem(()), "There is nothing to place: no units"),
        (lambda: problem(units(1) * 2), "Unit 'u0' occurs twice"),
        (lambda: problem(units(1, slr=3)), "Unit 'u0': slr must be 0 to 2 on u280, not 3"),
        (lambda: problem(units(1), nets=(Net(source="u0", sink="x", bits=1),)), "no unit 'x'"),
        (
            lambda: problem(units(1), grid=Grid(columns=3)),
            "Grid columns must divide the 8 bands of an SLR of u280, not 3",
        ),
        (
            lambda: problem(units(1), grid=Grid(rows=3)),
            "Grid rows must divide the 4 clock regions of an SLR of u280, not 3",
        ),
        (lambda: place(problem(units(1)), device="u280"), "A problem has its device already"),
        (
            lambda: place(problem(units(1)), solver="gurobi"),
            "Unknown solver 'gurobi'; known:",
        ),
        (lambda: Part(name="a"), "Part 'a' must have one of chain, bram and uram"),
        (lambda: sites(()), "The nets of a unit must join its parts as a tree"),
        (lambda: sites((("a", "a"),)), "The nets of a unit must join its parts as a tree"),
        (lambda: sites((("a", "c"),)), "Net 'a' to 'c': no part 'c'"),
        (lambda: sites((("a", "b"),), count=0), "Unit count must be at least 1, not 0"),
        (
            lambda: sites((("a", "b"),), parts=(Part(name="a", bram=1), Part(name="b", bram=2))),
            "Two parts of a unit have the same resource: one stack each",
        ),
        (
            lambda: sites((("a", "b"),), device=load_device("vu9p")),
            "Sites are placed where the order of columns is known, not on vu9p",
        ),
    ],
)
def test_impossible_problems_are_refused(make, sentence):
    """Every invariant of a problem has its sentence."""
    with pytest.raises(ValueError, match=sentence):
        make()


def sites(nets, **changes):
    """Return a site problem of a BRAM and a URAM."""
    settings = {
        "device": U280,
        "parts": (Part(name="a", bram=1), Part(name="b", uram=1)),
        **changes,
    }
    return SitesProblem(
        name="s", unit="s", nets=tuple(Net(source=a, sink=b, bits=1) for a, b in nets), **settings
    )


def test_a_part_longer_than_every_column_is_named():
    """As many as fit would be none: that is no placement."""
    parts = (Part(name="a", chain=Chain(length=2000)), Part(name="b", uram=1))
    with pytest.raises(InfeasiblePlacement, match="DSP for part 'a': needs 2,000, has 0"):
        place(sites([("a", "b")], parts=parts))


SLOTS = """\
problem: slots
device: u280
grid: {columns: 2}
units:
  - {name: a, dsp: 4}
  - {name: t, grid: [2, 2], lut: 5}
meshes:
  - {unit: t, across_bits: 8, along_bits: 9}
nets:
  - {source: a, sink: t_*_0, bits: 7}
"""


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a placement file with one text replaced by another."""

    def write(old="", new="", text=SLOTS):
        assert old in text
        path = tmp_path / "p.yaml"
        path.write_text(text.replace(old, new, 1))
        return path

    return write


def test_file_becomes_units_and_nets(write):
    """Grids become units, meshes and patterns nets."""
    asked = load_problem(write())
    assert [unit.name for unit in asked.units] == ["a", "t_0_0", "t_0_1", "t_1_0", "t_1_1"]
    assert {(n.source, n.sink, n.bits) for n in asked.nets} == {
        ("a", "t_0_0", 7),
        ("a", "t_1_0", 7),
        ("t_0_0", "t_0_1", 8),
        ("t_1_0", "t_1_1", 8),
        ("t_0_0", "t_1_0", 9),
        ("t_0_1", "t_1_1", 9),
    }
    assert asked.crossing_wires == U280.crossing_wires


def test_device_of_a_file_can_be_replaced(write):
    """The device given wins over the file's."""
    assert load_problem(write(), device="u250").device.name == "u250"


def test_count_makes_numbered_units(write):
    """count: N gives name_0 and so on."""
    asked = load_problem(write("{name: a, dsp: 4}", "{name: a}\n  - {name: b, count: 2}"))
    assert [unit.name for unit in asked.units][:3] == ["a", "b_0", "b_1"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("dsp: 4", "dps: 4", r"p\.yaml, line 5: unknown key 'units\.0\.dps'; known: name, kind"),
        (
            "dsp: 4",
            "dsp: lots",
            r"p\.yaml, line 5: units\.0\.dsp is 'lots'; it must be a whole number",
        ),
        ("name: a, ", "", r"p\.yaml, line 5: key 'units\.0\.name' is missing"),
        ("columns: 2", "columns: 0", r"p\.yaml, line 3: Grid columns must be at least 1, not 0"),
        ("columns: 2", "columns: 3", r"p\.yaml: Grid columns must divide the 8 bands"),
        ("device: u280", "device: u281", r"line 2: Unknown device 'u281'; known: u250, u280"),
        ("problem: slots", "problem: slot", r"line 1: key 'problem' must be one of slots, sites"),
        ("problem: slots", "problem: [slots]", r"line 1: key 'problem' must .* not \['slots'\]"),
        ("problem: slots", "", r"p\.yaml: key 'problem' must be one of slots, sites, not None"),
        ("source: a", "source: x", r"p\.yaml, line 10: no unit is called 'x'"),
        ("unit: t", "unit: a", r"p\.yaml, line 8: 'a' is no grid of units; grids: t"),
        ("lut: 5", "lut: 5, count: 3", r"line 6: Unit 't' has a count or a grid, not both"),
        ("grid: [2, 2]", "grid: [2, 0]", r"line 6: Unit 't': count and grid must be 1 to 10,000"),
        ("bits: 7", "bits: 0", r"line 10: Net 'a' to 't_\*_0': bits must be at least 1, not 0"),
        ("problem: slots", "problem: [", r"p\.yaml, line \d+: not valid YAML"),
    ],
)
def test_file_errors_name_line_and_key(write, old, new, sentence):
    """What is wrong in a file is one sentence with its line and key."""
    with pytest.raises(ValueError, match=sentence):
        load_problem(write(old, new))


def test_file_that_is_a_list_is_refused(write):
    """A placement file is a mapping."""
    with pytest.raises(
        ValueError, match=r"p\.yaml: a placement is a mapping with key 'problem': slots, sites"
    ):
        load_problem(write(text="- 1\n"))


def test_unknown_spec_lists_the_built_in_ones():
    """A name that is neither built in nor a file says what there is."""
    with pytest.raises(ValueError, match="Unknown placement 'x'; known: rapidlayout, systolic32"):
        load_problem("x")
    with pytest.raises(ValueError, match=r"File 'x\.yaml' does not exist"):
        load_problem("x.yaml")
    assert SPECS == ("rapidlayout", "systolic32")
