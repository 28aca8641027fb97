"""Hostile values for sidecars and messages, and a check of what readers do with them."""

import copy
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import process_time

from xee_tf import XeeTFError
from xee_tf.sidecars.packing import render

LONGEST_TEXT = 2000
_STATUS = Path("/proc/self/status")


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


VALUES = [
    *(None, True, -1, 0, 1, 3, 255, 2**31, 2**32 - 1, 2**62, 2**63, 2**64, 10**30, 10**400),
    *(1.5, -0.5, 1e308, float("nan"), float("inf"), "", "a", "\ud800", "a\ud800b", "\x00", "x" * 100_000),
    *("O", "object", "S4294967295", "V1000000000", "U100000000", "<f8", "|u1", "<M8[ns]", "M8", "m8[3D]"),
    *("<M8[as]", "M8[-1D]", "<f16", "c16", "(1000000,)f8", "i4,i4", "i1[2]", "text", "bytes", "cftime"),
    *("uint8", "float32", "str", "datetime64[ns]", "NaN", "Infinity", "=" * 10, "AAAA", "//////////8="),
    *([], {}, [[]], nested(50), nested(300), [1] * 10, {"a": 1}, [None], ["\ud800"], [2**70], [0, 0]),
    *([2**40, 2**40], [1.5, 2.5], ["a", "b"], list(range(1000)), "/etc/passwd", "../x", "a/b", "time", "y"),
    *("EPSG:0", "EPSG:99999999999999999999", "+proj=utm", "Example", "SequenceExample", "xee_tf table"),
    *("xee_tf image", "1.0", "2", "0x10", "-1", "1_000", " 5", "pad", "drop", "spatial_ref"),
]
"""Values that replace others in documents."""


def paths(value, path=()):
    """Yield the paths of all values in a document."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:8]):
            yield from paths(item, (*path, index))


def mutated(document, generator):
    """Return a copy of a document with one to three changes."""
    document = copy.deepcopy(document)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        *front, last = generator.choice([path for path in paths(document) if path])
        parent = document
        for key in front:
            parent = parent[key]
        value = copy.deepcopy(generator.choice(VALUES))
        how = generator.choice(("replace", "replace", "replace", "delete", "insert", "number", "repeat"))
        if how == "delete":
            del parent[last]
        elif how == "insert" and isinstance(parent, list):
            parent.insert(last, value)
        elif how == "insert":
            parent[generator.choice(("\ud800", "", "x" * 5000, *parent))] = value
        elif how == "number" and type(parent[last]) is int:
            parent[last] += generator.choice((-1, 1, 2**31, -(2**31)))
        elif how == "repeat" and isinstance(parent[last], list):
            parent[last] = parent[last] * generator.choice((0, 2, 1000))
        else:
            parent[last] = value
        if not any(path for path in paths(document) if path):
            break
    return document


def encoded(document, checksum):
    """Return the JSON of a document; with the right checksum if possible."""
    if checksum:
        try:
            return render({key: value for key, value in document.items() if key != "crc32c"}).encode()
        except (ValueError, RecursionError):
            pass
    return json.dumps(document).encode()


def resident(key):
    """Return the memory of this process in bytes, or its peak; 0 if the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(key)), 0)


class Counts(Counter[str]):
    """Outcomes of hostile inputs: what `check` finds, by kind."""

    def check(self, call, size, *, also=(), seconds=5.0, least=64 << 20, multiple=200):
        """Call a reader of `size` bytes; count what must not happen.

        These are: errors that are not of xee_tf (or in `also`), errors with long or invalid texts, more
        memory than `least` and `multiple` times the size, and more time than `seconds`.
        """
        self["calls"] += 1
        with suppress(OSError):
            _STATUS.with_name("clear_refs").write_text("5")  # reset the peak
        before, start = resident("VmRSS"), process_time()
        try:
            call()
        except (XeeTFError, *also) as error:
            self["own errors"] += 1
            text = str(error)
            if len(text) > LONGEST_TEXT:
                self[f"long text of {type(error).__name__}: {text[:100]}"] += 1
            text.encode()
        except Exception as error:
            self[f"foreign error {type(error).__name__}: {str(error)[:100]!r}"] += 1
        if (taken := process_time() - start) > seconds:
            self[f"{taken:.0f} s for {size} bytes"] += 1
        if (peak := resident("VmHWM") - before) > max(least, multiple * size):
            self[f"{peak:,} bytes of memory for {size:,} bytes"] += 1

    @property
    def wrong(self):
        """What must not happen, with its number."""
        return {kind: number for kind, number in self.items() if kind not in ("calls", "own errors")}
