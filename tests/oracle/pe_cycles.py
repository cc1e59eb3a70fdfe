"""The PEGrid simulated cycle by cycle with FIFOs as deques; knows nothing of the recurrence."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

CAUSES = ("work", "vacant", "wait", "imbalance", "drain")


@dataclass
class Element:
    """One PE: its FIFOs hold (chunk word, last of its tile)."""

    depth: int
    acts: deque = field(default_factory=deque)
    weights: deque = field(default_factory=deque)
    left: int = 0
    ends_after: bool = False
    done: bool = False

    def cycle(self, grid):
        """Do one cycle; returns its cause and the empty chunks passed."""
        if self.done:
            return "done", 0
        empty, vacant = 0, False
        while not self.left and self.acts and self.weights:
            (act, last), (weight, _) = self.acts.popleft(), self.weights.popleft()
            self.left, self.ends_after = (act & weight).bit_count(), last
            if self.left:
                break
            empty += 1
            if last or not grid.look_ahead:
                vacant, self.done = True, last
                break
        if not self.left:
            return ("vacant" if vacant else "wait"), empty
        self.left = max(0, self.left - grid.macs_per_pe)
        self.done = self.ends_after and not self.left
        return "work", empty


class Machine:
    """The whole grid; `sides` and `tops` are chunk words int[tile][chunk][lane]."""

    def __init__(self, grid, sides, tops):
        self.grid, self.sides, self.tops = grid, sides, tops
        self.pes = [[Element(grid.fifo_depth) for _ in range(grid.cols)] for _ in range(grid.rows)]
        self.tile, self.draining, self.cycles, self.busy, self.empty = 0, 0, 0, 0, 0
        self.sent_rows, self.sent_cols = [0] * grid.rows, [0] * grid.cols
        self.causes = dict.fromkeys(CAUSES, 0)

    def run(self):
        """Run all tiles; the first cycle counted is that of the first broadcast."""
        while self.tile < len(self.sides):
            self._cycle()
        return self

    def _cycle(self):
        states = [pe.cycle(self.grid) for row in self.pes for pe in row]
        self._count([state for state, _ in states])
        self.empty += sum(empty for _, empty in states)
        self.draining = max(0, self.draining - 1)
        if all(pe.done for row in self.pes for pe in row) and not self.draining:
            self._barrier()
        if self.tile < len(self.sides):
            self._broadcast()
        self.cycles += 1

    def _count(self, states):
        waiting = "drain" if all(state == "done" for state in states) else "imbalance"
        for state in states:
            self.causes[waiting if state == "done" else state] += 1
        self.busy += "work" in states

    def _barrier(self):
        self.tile += 1
        self.draining = self.grid.drain_beats
        self.sent_rows, self.sent_cols = [0] * self.grid.rows, [0] * self.grid.cols
        for row in self.pes:
            for pe in row:
                pe.done = False

    def _broadcast(self):
        chunks = len(self.sides[self.tile])
        for sent, words, lanes, name in (
            (self.sent_rows, self.sides[self.tile], self.pes, "acts"),
            (self.sent_cols, self.tops[self.tile], zip(*self.pes, strict=True), "weights"),
        ):
            for lane, pes in enumerate(lanes):
                fifos = [getattr(pe, name) for pe in pes]
                if sent[lane] < chunks and all(len(f) < self.grid.fifo_depth for f in fifos):
                    word = words[sent[lane]][lane]
                    sent[lane] += 1
                    for fifo in fifos:
                        fifo.append((word, sent[lane] == chunks))


def words(mask, lanes, chunk):
    """Chunk words of bool[items, k], int[tile][chunk][lane]."""
    items, k = mask.shape
    padded = np.pad(mask, ((0, -items % lanes), (0, -k % chunk)))

    def word(bits):
        return sum(1 << position for position, bit in enumerate(bits) if bit)

    return [
        [
            [word(tile[lane, at : at + chunk]) for lane in range(lanes)]
            for at in range(0, padded.shape[1], chunk)
        ]
        for tile in padded.reshape(-1, lanes, padded.shape[1])
    ]


def simulate(grid, act, weight):
    """Run the product of masks act bool[m, k] and weight bool[k, n]."""
    full = (1 << grid.chunk) - 1

    def kept(tiles, skips):
        return tiles if skips else [[[full] * len(c) for c in tile] for tile in tiles]

    down = kept(words(act, grid.rows, grid.chunk), grid.skips_activations)
    across = kept(words(weight.T, grid.cols, grid.chunk), grid.skips_weights)
    sides = [tile for tile in down for _ in across]
    return Machine(grid, sides, across * len(down)).run()
