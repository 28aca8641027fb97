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
    importing,
    memory,
    planning,
    predicting,
    reading,
    remote,
    serving,
    tables,
)
from benchmarks.measure import Measurement

SUITES = {
    "importing": importing.run,
    "planning": planning.run,
    "exporting": exporting.run,
    "encoding": encoding.run,
    "tables": tables.run,
    "reading": reading.run,
    "memory": memory.run,
    "predicting": predicting.run,
    "serving": serving.run,
    "remote": remote.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(SUITES)}")
    parser.add_argument(
        "--small", action="store_true", help="sizes for a quick check: the figures mean little"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the figures go")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SUITES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    found: list[Measurement] = []
    for name in options.names or SUITES:
        for measurement in SUITES[name](options.small):
            found.append(measurement)
            print(line(measurement), flush=True)
    report = {
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor(),
            "python": platform.python_version(),
        },
        "small": options.small,
        "measurements": [{**asdict(each), "reached": each.reached} for each in found],
    }
    options.json.write_text(json.dumps(report, indent=2))


def line(each: Measurement) -> str:
    """One measurement for a person."""
    sign = ">=" if each.more else "<="
    return (
        f"{'ok  ' if each.reached else 'MISS'} {each.value:8.3g} {each.unit:6} (goal {sign} {each.goal:g})  "
        f"{each.what} | {each.against} | {each.note}"
    )


if __name__ == "__main__":
    main()
