"""Duration of `import xee_tf`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measure import Measurement, best_times

_DEPENDENCIES = "import xarray, rioxarray, dask.array"


def run(small: bool) -> Iterator[Measurement]:
    # bytecode is cached, as in an installed package
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def python(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    times = best_times(
        {
            "xee_tf": lambda: python("import xee_tf, sys; assert 'tensorflow' not in sys.modules"),
            "dependencies": lambda: python(_DEPENDENCIES),
        },
        repeat=2 if small else 7,
    )
    note = f"{times['xee_tf']:.2f} and {times['dependencies']:.2f} s, without TensorFlow"
    ratio = times["xee_tf"] / times["dependencies"]
    yield Measurement("import xee_tf", _DEPENDENCIES, ratio, "times", 1.15, False, note)
