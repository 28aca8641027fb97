"""What `import xee_tf` costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measure import Measurement, best_times

_PEERS = "import xarray, rioxarray, dask.array"


def run(small: bool) -> Iterator[Measurement]:
    # Compiled code is kept between imports, as it is for whoever installs the package.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def python(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    times = best_times(
        {
            "xee_tf": lambda: python("import xee_tf, sys; assert 'tensorflow' not in sys.modules"),
            "peers": lambda: python(_PEERS),
        },
        repeat=2 if small else 7,
    )
    note = f"{times['xee_tf']:.2f} against {times['peers']:.2f} s, no TensorFlow"
    ratio = times["xee_tf"] / times["peers"]
    yield Measurement(
        "import xee_tf", "import xarray, rioxarray, dask.array", ratio, "times", 1.15, False, note
    )
