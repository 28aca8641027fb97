"""The first record of an export, from which its features are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from xee_tf.errors import RecordError
from xee_tf.records import (
    FRAMING,
    RecordLayout,
    decode_sequence_example,
    read_layout,
    read_sequence_layout,
)
from xee_tf.shards import Shard, first_record

__all__ = ["FirstRecord", "parse_record"]


@dataclass(frozen=True, eq=False)
class FirstRecord:
    """The first record of a list of shards.

    Parameters
    ----------
    shard : Shard
        The shard that contains the record.
    data : bytes or None
        The message; None if all shards are empty.
    """

    shard: Shard
    data: bytes | None

    @classmethod
    def from_shards(cls, shards: Sequence[Shard]) -> Self:
        """Read the first record of the first shard that is not empty."""
        for shard in shards:
            data = first_record(shard)
            if data is not None:
                return cls(shard, data)
        return cls(shards[0], None)

    @property
    def size(self) -> int | None:
        """Size of the record and its framing in bytes."""
        return None if self.data is None else len(self.data) + FRAMING

    @contextmanager
    def error_context(self) -> Iterator[None]:
        """Prepend the file and the number of this record to the message of a RecordError."""
        try:
            yield
        except RecordError as error:
            raise RecordError(f"{self.shard}: record 0: {error}") from None


def parse_record(data: bytes) -> tuple[RecordLayout, dict[str, int]]:
    """Return all features of a record, and the number of steps of each series."""
    _, series = decode_sequence_example(data)
    if not series:
        return read_layout(data), {}
    return read_sequence_layout([data]), {name: len(steps) for name, steps in series.items()}
