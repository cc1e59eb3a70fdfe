"""What is remembered of programs, and for how long."""

from simulator import recent
from simulator.recent import PerProgram


def test_a_value_belongs_to_one_program_object_and_its_tokens():
    known, made = PerProgram(), []

    def make():
        made.append(len(made))
        return made[-1]

    program, equal = [1, 2], [1, 2]
    assert [known.get(program, {"a": 1}, make) for _ in range(2)] == [0, 0]
    assert known.get(program, {"a": 2}, make) == 1
    assert known.get(equal, {"a": 2}, make) == 2


def test_the_programs_not_asked_for_the_longest_are_forgotten_first(monkeypatch):
    monkeypatch.setattr(recent, "MOST_PROGRAMS", 2)
    known, programs = PerProgram(), [[n] for n in range(3)]
    for n in (0, 1, 0, 2):
        known.get(programs[n], {}, lambda n=n: n)
    assert [known.get(programs[n], {}, lambda: "new") for n in (0, 2)] == [0, 2]
    assert known.get(programs[1], {}, lambda: "new") == "new"


def test_what_fails_is_not_remembered():
    known = PerProgram()
    for _ in range(2):
        try:
            known.get((), {}, lambda: 1 / 0)
        except ZeroDivisionError:
            continue
        raise AssertionError("a failure was remembered")
