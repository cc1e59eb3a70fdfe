"""Nothing moved. If a figure is meant to move, regenerate and list it as a model change."""

import importlib.util
import json
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "golden_regenerate", Path(__file__).with_name("regenerate.py")
)
regenerate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(regenerate)

GOLDEN = json.loads(regenerate.PATH.read_text())


def test_golden_file_holds_exactly_the_cases():
    assert set(GOLDEN) == {"_meta", *map(regenerate.name, regenerate.CASES)}


@pytest.mark.parametrize("case", regenerate.CASES, ids=regenerate.name)
def test_golden_figures_have_not_moved(case):
    now, then = regenerate.figures(*case), GOLDEN[regenerate.name(case)]
    assert now.pop("energy_pj") == pytest.approx(then.pop("energy_pj"), rel=1e-9)
    assert now == then
