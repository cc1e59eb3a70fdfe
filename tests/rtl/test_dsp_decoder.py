"""The decoder in Amaranth's simulator: words of any program, into six queues, field by field."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.dsp_machine.fetch import Decoder
from simulator.dsp_isa import Instruction, Module, encode
from simulator.dsp_isa.layout import FIELDS, module_mask

pytestmark = pytest.mark.rtl


def drawn(rng, count):
    """Return random instructions: every field, wait and release drawn."""
    found = []
    for _ in range(count):
        module = list(Module)[rng.integers(len(Module))]
        others = [other for other in Module if other is not module]
        chosen = [tuple(m for m in others if rng.random() < 0.5) for _ in range(2)]
        fields = {
            name: int(rng.integers(1 << width)) for name, (_, _, width) in FIELDS[module].items()
        }
        found.append(Instruction(module=module, waits=chosen[0], releases=chosen[1], fields=fields))
    return found


def decoded(words, *, ready, cycles):
    """Return (number, module, fields and masks) of what leaves, and whether a word was unknown."""
    decoder, found = Decoder(), []

    async def bench(ctx):
        left = list(words)
        for cycle in range(cycles):
            ctx.set(decoder.word.valid, bool(left))
            ctx.set(decoder.word.payload, left[0] if left else 0)
            open_now = ready(cycle)
            for module in Module:
                ctx.set(getattr(decoder, module.lower()).ready, open_now)
            for module in Module:
                queue = getattr(decoder, module.lower())
                if ctx.get(queue.valid) and open_now:
                    item = ctx.get(queue.payload)
                    names = ("waits", "releases", *FIELDS[module])
                    found.append((item.number, module, {name: item[name] for name in names}))
            if left and ctx.get(decoder.word.ready):
                left.pop(0)
            await ctx.tick()
        found.append(bool(ctx.get(decoder.unknown)))

    simulator = Simulator(decoder)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found[:-1], found[-1]


@pytest.mark.parametrize("period", [1, 3])
def test_every_field_of_any_program_comes_out_in_order(period):
    """The words of `encode` are what the hardware decodes, also when its queues are often full."""
    program = drawn(np.random.default_rng(period), 60)
    found, unknown = decoded(
        encode(tuple(program)).tolist(),
        ready=lambda cycle: cycle % period == 0,
        cycles=600 * period,
    )
    assert not unknown
    assert found == [
        (
            number,
            item.module,
            {
                "waits": module_mask(item.module, item.waits),
                "releases": module_mask(item.module, item.releases),
                **{name: item.get(name) for name in FIELDS[item.module]},
            },
        )
        for number, item in enumerate(program)
    ]


def test_an_unknown_opcode_ends_decoding():
    """What stands behind it is never run."""
    words = encode((Instruction(module=Module.SYS),)).tolist()
    found, unknown = decoded([*words, 9 << 28, *words], ready=lambda _: True, cycles=20)
    assert unknown
    assert [module for _, module, _ in found] == [Module.SYS]
