"""The floating-point units in Amaranth's simulator: latency, enable and formats."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.float import FP16, FP32, Adder, Converter, Multiplier
from simulator.units.float32 import add, bits16, bits32, multiply, narrow, widen

LATENCIES = (1, 2, 3, 5, 6, 11)


def drawn(rng, fmt, size):
    """Return operand bits with exponents close enough to interact."""
    exponent = rng.integers(fmt.bias - 6, fmt.bias + 7, size) << fmt.fraction_bits
    sign = rng.integers(0, 2, size) << (fmt.bits - 1)
    return sign | exponent | rng.integers(0, 1 << fmt.fraction_bits, size)


def single(words):
    return words.astype(np.uint32).view(np.float32)


def half(words):
    return words.astype(np.uint16).view(np.float16)


UNITS = {
    "adder": (Adder, FP32, lambda a, b: bits32(add(single(a), single(b)))),
    "multiplier": (
        lambda latency: Multiplier(FP32, latency),
        FP32,
        lambda a, b: bits32(multiply(single(a), single(b))),
    ),
    "exact multiplier": (
        lambda latency: Multiplier(FP16, latency),
        FP16,
        lambda a, b: bits32(multiply(half(a), half(b))),
    ),
    "narrowing": (
        lambda latency: Converter(FP32, FP16, latency),
        FP32,
        lambda a, b: bits16(narrow(single(a))),
    ),
    "widening": (
        lambda latency: Converter(FP16, FP32, latency),
        FP16,
        lambda a, b: bits32(widen(half(a))),
    ),
}


def played(unit, a, b, enabled):
    """Offer pair i in the i-th enabled cycle; returns y as seen in every enabled cycle."""
    seen = []

    async def bench(ctx):
        given = 0
        for advance in enabled:
            ctx.set(unit.advance, int(advance))
            # While the unit is held its inputs are noise that it must not take.
            ctx.set(unit.a, int(a[given]) if advance else ~int(a[given]))
            if not isinstance(unit, Converter):
                ctx.set(unit.b, int(b[given]) if advance else ~int(b[given]))
            if advance:
                seen.append(ctx.get(unit.y))
                given += 1
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(seen)


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("latency", LATENCIES)
def test_unit_with_holds_delivers_after_its_latency_of_enabled_cycles(name, latency):
    make, fmt, truth = UNITS[name]
    rng = np.random.default_rng(latency)
    enabled = rng.random(60) < 0.7
    a, b = (drawn(rng, fmt, enabled.size) for _ in range(2))
    seen = played(make(latency), a, b, enabled)
    assert seen.size > 2 * latency
    count = seen.size - latency
    np.testing.assert_array_equal(seen[latency:], truth(a, b)[:count])


@pytest.mark.parametrize("name", ["exact multiplier", "widening"])
def test_combinational_unit_delivers_in_the_same_cycle(name):
    make, fmt, truth = UNITS[name]
    rng = np.random.default_rng(3)
    a, b = (drawn(rng, fmt, 20) for _ in range(2))

    async def bench(ctx):
        for one, other, result in zip(a, b, truth(a, b), strict=True):
            ctx.set(unit.a, int(one))
            if not isinstance(unit, Converter):
                ctx.set(unit.b, int(other))
            assert ctx.get(unit.y) == result

    unit = make(0)
    simulator = Simulator(unit)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("fmt", "dtype", "nan"), [(FP16, np.float16, 0x7E00), (FP32, np.float32, 0x7FC00000)]
)
def test_format_constants_equal_those_of_numpy(fmt, dtype, nan):
    info = np.finfo(dtype)
    assert (fmt.bits, fmt.fraction_bits, fmt.exponent_bits) == (info.bits, info.nmant, info.iexp)
    assert fmt.bias == info.maxexp - 1
    assert fmt.infinity == dtype(np.inf).view(f"u{fmt.bits // 8}")
    assert fmt.quiet_nan == nan
