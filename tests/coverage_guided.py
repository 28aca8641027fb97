"""Search for inputs that reach new code of the readers in `tests.fuzzing`, with atheris.

``python -m tests.coverage_guided 600 folder mixer manifest`` searches for ten minutes, in these readers (by
default in all), keeps the inputs in a folder, and prints what must not happen. The first byte of an input is
the number of the reader.
"""

import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Run the fuzzer."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    # Also what readers import when they are called.
    with atheris.instrument_imports(include=["xee_tf"]):
        from tests.fuzzing import LEAST_BYTES, READERS, TOKENS
        from tests.hostile import Counts

    seconds, folder = float(sys.argv[1]), Path(sys.argv[2])
    names = sys.argv[3:] or [name for name in READERS if name != "CRS"]  # PROJ is no Python code
    for number, name in enumerate(names):
        for index, data in enumerate(READERS[name][1]):
            (folder / f"valid-{number}-{index}").write_bytes(bytes([number]) + data)
    texts = ("".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS if 0 < len(token) <= 40)
    dictionary = folder.with_suffix(".tokens")
    dictionary.write_text("\n".join(f'"{text}"' for text in texts))
    counts, end = {name: Counts() for name in names}, time.monotonic() + seconds

    def check(data: bytes) -> None:
        if data and data[0] < len(names):
            name = names[data[0]]
            least = LEAST_BYTES.get(name, LEAST_BYTES[""])
            wrong = len(counts[name].wrong)
            counts[name].check(lambda: READERS[name][0](data[1:]), len(data), least=least)
            if len(counts[name].wrong) > wrong:
                print(name, data[1:])
        if time.monotonic() > end:
            for name, found in counts.items():
                print(
                    f"{name}: {found['calls']:,} inputs, {found['own errors']:,} own errors",
                    found.wrong or "",
                )
            sys.stdout.flush()
            os._exit(any(found.wrong for found in counts.values()))  # atheris would go on

    atheris.Setup([sys.argv[0], "-verbosity=0", "-max_len=4000", f"-dict={dictionary}", str(folder)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
