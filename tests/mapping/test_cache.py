"""Solved problems are found again, in this process and in a folder; bad files only cost time."""

import json

import pytest

import mapping.graph
import sparseloom as sl
from mapping import Cache, map_graph
from mapping.cache import MOST_ENTRIES, CacheWarning, Recent
from mapping.exhaustive import exhaustive
from simulator.arch.load import load_arch
from workloads.zoo import build


@pytest.fixture
def graph():
    return sl.gemm(40, 48, 56)


@pytest.fixture
def solved(monkeypatch):
    """Count the problems that the exhaustive mapper is asked."""
    asked = []

    def counted(arch, problem, name, goal, accept):
        asked.append(name)
        return exhaustive(arch, problem, name, goal, accept)

    mappers = {**mapping.graph.MAPPERS, "exhaustive": counted}
    monkeypatch.setattr("mapping.graph.MAPPERS", mappers)
    return asked


def same(a, b):
    return (a.schedule, a.mappings, a.cost, a.bound) == (b.schedule, b.mappings, b.cost, b.bound)


def test_a_folder_keeps_what_was_proved_for_the_next_process(tmp_path, graph, solved):
    machine = load_arch("nm-tiny")
    first = map_graph(graph, machine, cache=Cache(tmp_path))
    again = map_graph(graph, machine, cache=Cache(tmp_path))
    assert solved == ["gemm"]
    assert same(first, again)
    assert again.considered == first.considered
    assert len(list(tmp_path.iterdir())) == 1


def test_memory_keeps_what_was_proved_and_nothing_is_shared_unasked(graph, solved):
    machine, cache = load_arch("nm-tiny"), Cache()
    assert same(map_graph(graph, machine, cache=cache), map_graph(graph, machine, cache=cache))
    assert len(solved) == 1
    map_graph(graph, machine)
    assert len(solved) == 2


def test_what_no_product_depends_on_does_not_matter_and_the_rest_does(graph, solved):
    cache = Cache()
    for changes in ({}, {"vector_lanes": 7}, {"rows": 3}, {"dram": {"latency_cycles": 9}}):
        map_graph(graph, load_arch("nm-tiny", **changes), cache=cache)
    assert len(solved) == 3
    map_graph(graph, load_arch("nm-tiny"), cache=cache, objective="energy")
    assert len(solved) == 4


def test_only_proved_choices_are_kept(tmp_path, graph):
    found = map_graph(graph, load_arch("nm-tiny"), mapper="greedy", cache=Cache(tmp_path))
    assert found.gap > 0
    assert not list(tmp_path.iterdir())


DAMAGE = {
    "no json": lambda _: "{",
    "no object": lambda _: "[]",
    "nothing": lambda _: "",
    "no mapping": lambda _: json.dumps({"digest": "0", "mapping": []}),
    "no end": lambda _: "[" * 100_000,
    "no number": lambda d: json.dumps({**d, "mapping": {**d["mapping"], "cost": "x"}}),
    "empty object": lambda _: "{}",
    "foreign": lambda _: json.dumps({"digest": "0", "mapping": {"setting": 3}}),
    "another bound": lambda d: json.dumps({**d, "mapping": {**d["mapping"], "bound": 1}}),
    "another tile": lambda d: json.dumps(
        {**d, "mapping": {**d["mapping"], "shape": {**d["mapping"]["shape"], "m": 1}}}
    ),
    "no dataflow": lambda d: json.dumps(
        {**d, "mapping": {**d["mapping"], "setting": {**d["mapping"]["setting"], "dataflow": "x"}}}
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_damaged_or_foreign_file_is_solved_again(tmp_path, graph, solved, damage):
    machine = load_arch("nm-tiny")
    first = map_graph(graph, machine, cache=Cache(tmp_path))
    (file,) = tmp_path.iterdir()
    file.write_text(DAMAGE[damage](json.loads(file.read_text())), encoding="utf-8")
    assert same(first, map_graph(graph, machine, cache=Cache(tmp_path)))
    assert len(solved) == 2
    assert same(first, map_graph(graph, machine, cache=Cache(tmp_path)))
    assert len(solved) == 2  # the file was written anew


def test_a_choice_that_no_longer_costs_what_it_did_is_solved_again(tmp_path, graph, solved):
    """A whole file of another version of the model does not hold any more."""
    from dataclasses import replace

    from mapping.cache import _write

    machine = load_arch("nm-tiny")
    found = map_graph(graph, machine, cache=Cache(tmp_path))
    (file,) = tmp_path.iterdir()
    _write(file, replace(found.mappings[0], cost=found.cost - 1, bound=found.cost - 1))
    assert same(found, map_graph(graph, machine, cache=Cache(tmp_path)))
    assert len(solved) == 2


@pytest.mark.parametrize("inside", ["", "cache"])
def test_a_folder_that_cannot_be_written_is_a_warning_and_no_more(tmp_path, graph, inside):
    """The choice is the same without it, and said once, however many choices there are."""
    (tmp_path / "file").write_text("")
    cache, machine = Cache(tmp_path / "file" / inside), load_arch("nm-tiny")
    with pytest.warns(CacheWarning, match=r"Cache folder '.*' cannot be written: "):
        found = map_graph(graph, machine, cache=cache)
    map_graph(graph, load_arch("nm-tiny", rows=3), cache=cache)  # a warning would be an error
    assert same(found, map_graph(graph, machine))


def test_an_entry_that_is_a_folder_is_left_and_nothing_lies_beside_it(tmp_path, graph):
    """What cannot be renamed into place is taken away again."""
    machine = load_arch("nm-tiny")
    first = map_graph(graph, machine, cache=Cache(tmp_path))
    (file,) = tmp_path.iterdir()
    file.unlink()
    (file / "in the way").mkdir(parents=True)
    with pytest.warns(CacheWarning):
        assert same(first, map_graph(graph, machine, cache=Cache(tmp_path)))
    assert list(tmp_path.iterdir()) == [file]


def test_packed_groups_are_found_again(tmp_path):
    """A depthwise convolution keeps how many of its groups share one product."""
    network, machine = build("mobilenet-v1", image=32), load_arch("sat-vcu1525")
    first = map_graph(network, machine, cache=Cache(tmp_path))
    assert any(mapping.packed > 1 for mapping in first.mappings)
    assert same(first, map_graph(network, machine, cache=Cache(tmp_path)))


def test_recent_forgets_what_was_not_asked_for_the_longest():
    recent = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)
    assert MOST_ENTRIES > 100
