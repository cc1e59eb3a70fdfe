import hypothesis.strategies as st
import pytest
from hypothesis import given

from simulator.engine import program_cycles, without
from simulator.schedule import (
    OpSchedule,
    Repeat,
    Schedule,
    Step,
    Unit,
    verify_schedule,
)


def step_by_step(block, tokens):
    """Run a program one step at a time: the definition the engine must equal."""
    units = dict.fromkeys(Unit, 0)
    channels = {name: [0] * count for name, count in tokens.items()}

    def run(items):
        for item in items:
            if isinstance(item, Repeat):
                for _ in range(item.times):
                    run(item.body)
                continue
            start = max([units[item.unit], *(channels[c].pop(0) for c in item.waits)])
            units[item.unit] = start + item.cycles
            for channel in item.releases:
                channels.setdefault(channel, []).append(start + item.cycles + item.latency)

    run(block)
    return max(units.values())


durations = st.integers(0, 40)


@st.composite
def pipelines(draw):
    """Draw a double-buffered load, compute, store program with nested loops and ragged ends."""

    def tile():
        load = Step(
            unit=Unit.DMA,
            label="load",
            cycles=draw(durations),
            latency=draw(durations),
            waits=("in.free",),
            releases=("in.full",),
        )
        unit = draw(st.sampled_from([Unit.ARRAY, Unit.VECTOR]))
        compute = Step(
            unit=unit,
            label="compute",
            cycles=draw(durations),
            waits=("in.full", "out.free"),
            releases=("in.free", "out.full"),
        )
        return load, compute

    def store():
        return Step(
            unit=Unit.DMA,
            label="store",
            cycles=draw(durations),
            waits=("out.full",),
            releases=("out.free",),
        )

    inner = (*tile(), store(), *tile(), store())
    times = st.integers(1, 9)
    loop = Repeat(times=draw(times), body=(*tile(), store(), Repeat(times=draw(times), body=inner)))
    tokens = {"in.free": draw(st.integers(1, 3)), "out.free": draw(st.integers(2, 3))}
    return (*tile(), loop, *tile(), store(), store()), tokens


@given(pipelines())
def test_program_cycles_of_any_pipeline_equal_step_by_step(program):
    assert program_cycles(*program) == step_by_step(*program)


@st.composite
def drifting(draw):
    """Draw a loop of units that do not wait for each other, and a chain through the slower."""
    steps = [
        Step(unit=unit, label="work", cycles=draw(durations), releases=(f"{unit}.full",))
        for unit in (Unit.ARRAY, Unit.VECTOR)
    ]
    both = Step(
        unit=Unit.DMA,
        label="both",
        cycles=draw(durations),
        waits=("array.full", "vector.full"),
        latency=draw(durations),
    )
    return (Repeat(times=draw(st.integers(1, 200)), body=(*steps, both)), both_after(draw)), {}


def both_after(draw):
    return Step(unit=Unit.ARRAY, label="after", cycles=draw(durations))


@given(drifting())
def test_program_cycles_of_units_that_drift_apart_equal_step_by_step(program):
    """Such loops never fall into a common rhythm: they are taken as matrices."""
    assert program_cycles(*program) == step_by_step(*program)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_program_cycles_of_loops_that_alternate_equal_step_by_step(slots):
    """Latency beyond the work makes passes bunch: as many alike as there are slots."""
    work = Step(
        unit=Unit.DMA, label="work", cycles=1, latency=10, waits=("free",), releases=("free",)
    )
    for times in range(1, 60):
        program = (Repeat(times=times, body=(work,)), work), {"free": slots}
        assert program_cycles(*program) == step_by_step(*program)


@given(pipelines())
def test_program_cycles_without_latency_are_never_more(program):
    block, tokens = program
    faster = without(
        block,
        lambda s: Step(
            unit=s.unit, label=s.label, cycles=s.cycles, waits=s.waits, releases=s.releases
        ),
    )
    assert program_cycles(faster, tokens) <= program_cycles(block, tokens)


def test_program_cycles_of_a_billion_trips_are_exact():
    load = Step(unit=Unit.DMA, label="load", cycles=7, waits=("free",), releases=("full",))
    work = Step(unit=Unit.ARRAY, label="work", cycles=11, waits=("full",), releases=("free",))
    program = (Repeat(times=10**9, body=(load, work)),)
    assert program_cycles(program, {"free": 2}) == 7 + 11 * 10**9


def test_program_cycles_of_nothing_are_zero():
    assert program_cycles((), {}) == 0


def schedule(program, tokens):
    op = OpSchedule(name="conv1", kind="conv", program=program, tokens=tokens)
    return Schedule(workload="w", workload_digest="", arch_digest="", sparsity="dense", ops=(op,))


def test_verify_schedule_names_the_step_that_waits_in_vain():
    step = Step(unit=Unit.DMA, label="load act", cycles=1, waits=("act.free",))
    with pytest.raises(ValueError, match=r"'conv1': step 'load act' waits for 'act.free' in vain"):
        verify_schedule(schedule((step, step), {"act.free": 1}))


def test_verify_schedule_refuses_a_loop_that_leaks_tokens():
    step = Step(unit=Unit.DMA, label="load act", cycles=1, releases=("act.full",))
    with pytest.raises(ValueError, match=r"repeated body changes the tokens of 'act\.full'"):
        verify_schedule(schedule((Repeat(times=2, body=(step,)),), {}))


def test_step_with_negative_cycles_is_refused():
    with pytest.raises(ValueError, match="'x': cycles and latency must be at least 0"):
        Step(unit=Unit.DMA, label="x", cycles=-1)


def test_repeat_of_zero_times_is_refused():
    with pytest.raises(ValueError, match="at least once, not 0 times"):
        Repeat(times=0, body=())


def test_schedule_digest_follows_its_programs():
    steps = [Step(unit=Unit.DMA, label="load", cycles=c) for c in (1, 2)]
    one, other = (schedule((step,), {}) for step in steps)
    assert one.digest() == schedule((steps[0],), {}).digest() != other.digest()
