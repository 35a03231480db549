"""The table of docs/networks.md is what scripts/try_networks.py finds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_network_of_the_table_comes_out_as_it_says():
    done = subprocess.run(
        [sys.executable, str(PROJECT / "scripts" / "try_networks.py")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    told = [line for line in (PROJECT / "docs" / "networks.md").read_text().splitlines() if line.startswith("| ")]
    first = told.index(table[0])
    assert table == told[first:]
