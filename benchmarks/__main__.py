"""Run the benchmarks: ``python -m benchmarks [--small] [--json FILE] [NAME ...]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("benchmarks.json"),
        help="file for the results; those of other benchmarks in it are kept",
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(SUITES):
        parser.error(f"Benchmarks not found: {', '.join(sorted(unknown))}; available: {', '.join(SUITES)}")
    results = earlier(options.json, options.small)
    for name in options.names or SUITES:
        results[name] = []
        for each in SUITES[name](options.small):
            print(format_line(each), flush=True)
            results[name].append({"suite": name, **asdict(each), "passed": each.passed})
    report = {
        "machine": machine(),
        "small": options.small,
        "measurements": [each for name in SUITES for each in results.get(name, [])],
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Describe this machine."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def earlier(file: Path, small: bool) -> dict[str, list[dict[str, Any]]]:
    """Read the results of other benchmarks from a file, if it was written on the same kind of machine."""
    if not file.exists():
        return {}
    report = json.loads(file.read_text())
    if (report["machine"], report["small"]) != (machine(), small):
        return {}
    results: dict[str, list[dict[str, Any]]] = {}
    for each in report["measurements"]:
        results.setdefault(each["suite"], []).append(each)
    return results


def format_line(each: Measurement) -> str:
    """Format a measurement as a line of the table."""
    sign = ">=" if each.higher_is_better else "<="
    return (
        f"{'ok  ' if each.passed else 'MISS'} {each.value:8.3g} {each.unit:6} (goal {sign} {each.goal:g})  "
        f"{each.name} | {each.baseline} | {each.note}"
    )


if __name__ == "__main__":
    main()
