"""Run the benchmarks: ``python -m benchmarks [--small] [--json FILE] [NAME ...]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from benchmarks import (
    encoding,
    exporting,
    geotiffs,
    importing,
    memory,
    moving,
    planning,
    predicting,
    reading,
    remote,
    serving,
    tables,
    training,
    workers,
)
from benchmarks.measure import Measurement

SUITES = {
    "importing": importing.run,
    "planning": planning.run,
    "exporting": exporting.run,
    "encoding": encoding.run,
    "tables": tables.run,
    "reading": reading.run,
    "training": training.run,
    "memory": memory.run,
    "geotiffs": geotiffs.run,
    "moving": moving.run,
    "workers": workers.run,
    "predicting": predicting.run,
    "serving": serving.run,
    "remote": remote.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(SUITES)}")
    parser.add_argument(
        "--small",
        action="store_true",
        help="use small sizes, whose results are not representative",
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="file for the results")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SUITES):
        parser.error(f"Benchmarks not found: {', '.join(sorted(unknown))}; available: {', '.join(SUITES)}")
    measurements: list[Measurement] = []
    for name in options.names or SUITES:
        for measurement in SUITES[name](options.small):
            measurements.append(measurement)
            print(format_line(measurement), flush=True)
    report = {
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor(),
            "python": platform.python_version(),
        },
        "small": options.small,
        "measurements": [{**asdict(each), "passed": each.passed} for each in measurements],
    }
    options.json.write_text(json.dumps(report, indent=2))


def format_line(each: Measurement) -> str:
    """Format a measurement as a line of the table."""
    sign = ">=" if each.higher_is_better else "<="
    return (
        f"{'ok  ' if each.passed else 'MISS'} {each.value:8.3g} {each.unit:6} (goal {sign} {each.goal:g})  "
        f"{each.name} | {each.baseline} | {each.note}"
    )


if __name__ == "__main__":
    main()
