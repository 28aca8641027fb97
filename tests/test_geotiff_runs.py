"""GeoTIFFs are written, or not written with an error: the process does not die, and nothing is left."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, needs_posix

pytestmark = needs_posix

PROBLEMS = {"death", "status", "damaged file", "missing file", "old file", "new file", "leftover"}


@pytest.mark.parametrize(("count", "seed"), [(4, 1), pytest.param(200, 2, marks=pytest.mark.long)])
def test_runs_that_are_disturbed(count, seed, tmp_path):
    """See `tests.geotiff_runs`."""
    command = [sys.executable, "-m", "tests.geotiff_runs", tmp_path, count, seed]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=ROOT, timeout=60 + 10 * count
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    print(counts)
    assert counts["runs"] == count
    assert not PROBLEMS & set(counts), done.stdout
