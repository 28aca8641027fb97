"""Compare whole files with the manifest, for readers that check the CRC of each record themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from xee_tf.errors import RecordError
from xee_tf.records import FOOTER, run_crc
from xee_tf.shards.matching import foreign_run
from xee_tf.shards.scan import read_pieces, scan_file
from xee_tf.shards.shard import Shard, check_stamp

__all__ = ["check_file", "checked_rows"]

_PIECE = 8 << 20  # bytes to read and decompress at a time
_BUFFER = 1 << 20


def check_file(shard: Shard) -> None:
    """Compare a file with its manifest; without a manifest, check that it is the file that was opened.

    Raises
    ------
    RecordError
        If they differ.
    """
    if shard.run_starts is None:
        check_stamp(shard)
    elif shard.crc32c is None:  # another program has compressed or decompressed it
        for _ in checked_rows(shard):
            pass
    else:
        crc, buffer = 0, memoryview(bytearray(_BUFFER))
        with shard.location.open() as file:
            while size := file.readinto(buffer):
                crc = crc32c(buffer[:size], crc)
        if crc != shard.crc32c:
            check_stamp(shard)
            raise RecordError(
                f"{shard} has the CRC-32C {crc:08x}, but the manifest describes {shard.crc32c:08x}: the file "
                "is corrupt, belongs to another export, or was replaced after it was opened. If it is "
                "correct, remove the manifest."
            )


def checked_rows(shard: Shard) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the framed records of a file as `scan_records` does, and compare their runs with the manifest."""
    try:
        yield from _checked_rows(shard)
    except RecordError:
        check_stamp(shard)  # a file that was replaced seems corrupt
        raise


def _checked_rows(shard: Shard) -> Iterator[npt.NDArray[np.uint8]]:
    source = str(shard)
    pieces = read_pieces(shard.location, _PIECE)
    rows_of_file = scan_file(pieces, source, _PIECE, lambda: shard.size)
    starts, crcs = shard.run_starts, shard.run_crcs
    if starts is None or crcs is None:
        yield from rows_of_file
        return
    first = crc = run = 0
    for rows in rows_of_file:
        yield rows
        footers, used = np.ascontiguousarray(rows[:, -FOOTER:]), 0
        while used < len(rows):
            if run == len(crcs):
                raise foreign_run(shard, first + used, first + len(rows))
            stop = min(int(starts[run + 1]) - first, len(rows))
            crc = run_crc(footers[used:stop], crc)
            used = stop
            if first + stop == starts[run + 1]:
                if crc != crcs[run]:
                    raise foreign_run(shard, int(starts[run]), int(starts[run + 1]))
                crc, run = 0, run + 1
        first += len(rows)
    if first != starts[-1]:
        raise RecordError(
            f"{shard} has {first:,} records, but the manifest describes {int(starts[-1]):,}: it is truncated "
            "or belongs to another export."
        )
