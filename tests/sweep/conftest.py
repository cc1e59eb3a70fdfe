import pytest


@pytest.fixture
def topology(tmp_path):
    """Return a workload of one small convolution, mapped in milliseconds."""
    path = tmp_path / "net.csv"
    path.write_text(
        "Layer, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
        "Strides\nfirst, 8, 8, 3, 3, 8, 8, 1,\nsecond, 6, 6, 1, 1, 16, 8, 1,\n"
    )
    return path


@pytest.fixture
def small(topology):
    """Return a sweep of 24 quick points, 8 of them impossible."""
    return {
        "workloads": [str(topology)],
        "sparsities": ["dense", "2:8"],
        "archs": [
            {
                "base": "nm-tiny",
                "parameters": {"rows": [2, 4, 0], "cols": [2, 4], "overlap": [True, False]},
            }
        ],
        "objectives": ["cycles", "multipliers"],
    }
