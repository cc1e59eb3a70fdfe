"""Small networks for the machine, and one training step of them on RTL and model side by side."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mapping.graph import map_graph
from rtl.cosim.step import memory_image, read_weights, run_step, tensor_bits
from rtl.machine.assembler import assemble, layout_rules
from simulator.simulate import simulate
from workloads.builder import GraphBuilder
from workloads.sparsity import NofM


def perceptron(batch=8):
    net = GraphBuilder()
    x = net.tensor("input", (batch, 32))
    for i in (1, 2):
        x = net.linear(f"fc{i}", x, 32, post=("Relu",))
    net.linear("fc3", x, 16)
    return net.build("perceptron")


def convolutions(batch=2):
    net = GraphBuilder()
    x = net.tensor("input", (batch, 8, 8, 4))
    x = net.conv("conv1", x, 16, 3, post=("Relu",))
    x = net.conv("conv2", x, 16, 3, stride=2, post=("Relu",))
    net.linear("fc", net.flatten("flatten", x), 16)
    return net.build("convolutions")


NETWORKS = {"perceptron": perceptron, "convolutions": convolutions}


def start_values(graph, seed):
    """Return inputs, labels, master weights and momenta drawn from a seeded generator."""
    rng = np.random.default_rng(seed)
    made = {op.output for op in graph.ops}
    values: dict[str, Any] = {}
    for name in dict.fromkeys(name for op in graph.ops for name in op.inputs):
        spec = graph.tensors[name]
        if name == "labels":
            values[name] = rng.integers(0, 10, spec.shape, dtype=np.uint32)
        elif spec.bits == 32:
            values[name] = rng.normal(0, 0.3, spec.shape).astype(np.float32)
        elif name not in made and not spec.parameter:
            values[name] = rng.normal(0, 1, spec.shape).astype(np.float16)
    return values


@dataclass
class Step:
    """A training step: its program, memory before it, and every tensor numpy has after it."""

    schedule: Any
    program: Any
    first: dict[str, Any]
    expected: dict[str, Any]

    @property
    def image(self):
        return memory_image(self.program, self.first, 64)

    @property
    def image_after(self):
        return memory_image(self.program, self.first | self.expected, 64)


def prepare(arch, network, method="bdwp", seed=1):
    """Map and assemble a step of a network, and take it in numpy."""
    sparsity = None if method == "dense" else NofM(2, 4)
    graph = NETWORKS[network]().training(method, sparsity=sparsity)
    schedule = map_graph(graph, arch, layout=layout_rules(graph, arch)).schedule
    before = start_values(graph, seed)
    return Step(
        schedule,
        assemble(schedule, graph, arch),
        before | read_weights(graph, before),
        run_step(schedule, graph, arch, before),
    )


@dataclass
class Outcome:
    result: Any
    program: Any
    ran: Any
    wrong: list[str]


def train(model, network, arch=None, method="bdwp", seed=1, shake=False):
    """Run a step on a compiled machine; `arch` may differ from its build in how it is mapped."""
    arch = arch or model.arch
    step = prepare(arch, network, method, seed)
    expected, regions = step.expected, step.program.regions
    ran = model.run(step.program, step.image, limit=500_000, shake=shake)
    wrong = [
        name
        for name, region in regions.items()
        if name in expected
        and not np.array_equal(tensor_bits(region, expected[name]), ran.tensor_bits(region, 64))
    ]
    return Outcome(simulate(step.schedule, arch), step.program, ran, wrong)


def model_cycles(outcome):
    rows = outcome.result.per_op
    return {str(row["name"]): int(row["cycles"]) for row in rows if row["cycles"]}
