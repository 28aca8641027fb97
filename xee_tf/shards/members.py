"""Gzip members: compressing runs of records, and an index of them in the first member's header.

A gzip file may hold several members, one after the other; TensorFlow, gzip and zlib read them as
one stream. Members are therefore compressed apart from one another, in parallel. The header of a
shard's first member carries our index in an "extra field" (RFC 1952, section 2.3.1.1), which every
other reader skips: with it, a few records are read without inflating what lies in front of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from isal import igzip_lib

from xee_tf.errors import RecordError
from xee_tf.varints import decode_varints, encode_varints

__all__ = [
    "HEAD_BYTES",
    "IMAGE_MEMBER",
    "ISAL_ERROR",
    "MEMBER_HEADER",
    "PREDICTION_MEMBER",
    "TABLE_MEMBER",
    "MemberIndex",
    "compress_member",
    "index_room",
    "indexed_header",
    "inflate_member",
    "member_edges",
    "patches_per_member",
    "read_index",
]

MEMBER_HEADER = bytes.fromhex("1f8b08000000000000ff")
"""The plain header of every member that `compress_member` makes: no name, time 0, any system."""

HEAD_BYTES = 10 + 2 + 0xFFFF
"""Bytes of a shard that surely hold its whole first header, index included."""

IMAGE_MEMBER = 64 << 10
"""Bytes of records in a gzip member of an image, about: enough to compress well, little enough that reading
one patch inflates little else."""

TABLE_MEMBER = 1 << 20
"""The same of a table, whose rows are mostly read one after the other: so much is inflated to read one."""

PREDICTION_MEMBER = 1 << 20
"""The same of predictions, which are read as a whole: fewer members need a smaller index, whose room is kept
free before the first one is written."""

_EXTRA_HEADER = bytes.fromhex("1f8b08040000000000ff")  # the same with FLG.FEXTRA
_FIELD = b"XF"
_VERSION = 1
_LARGEST = 0xFFFF - 4  # XLEN counts the subfield's own four bytes
ISAL_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub says an instance


def patches_per_member(patch_bytes: int, columns: int, member_bytes: int) -> int:
    """Patches in a gzip member: it ends where a row of patches ends, and holds at least one.

    It depends on the records alone, so that the bytes of an export do not depend on the chunks of its source.

    Parameters
    ----------
    patch_bytes : int
        Bytes of all records of a patch, with their framing; the largest possible if they vary.
    columns : int
        Patches in a row.
    member_bytes : int

    Examples
    --------
    >>> [patches_per_member(size, 100, IMAGE_MEMBER) for size in (100, 10_000, 1_000_000)]
    [100, 6, 1]
    """
    return min(columns, max(1, member_bytes // patch_bytes))


def member_edges(offsets: npt.NDArray[np.int64], member_bytes: int) -> list[int]:
    """The records at which gzip members begin, and the end, where records vary in size.

    Parameters
    ----------
    offsets : ndarray of int64
        Where each record begins, and the end of the last one.
    member_bytes : int
        Members hold as much, or one larger record.

    Examples
    --------
    >>> member_edges(np.array([0, 40, 90, 250, 300]), 100)
    [0, 2, 3, 4]
    """
    edges, count = [0], len(offsets) - 1
    while edges[-1] < count:
        first = edges[-1]
        full = int(np.searchsorted(offsets, offsets[first] + member_bytes, "right")) - 1
        edges.append(min(max(full, first + 1), count))
    return edges


def compress_member(data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]) -> bytes:
    """One gzip member that starts with `MEMBER_HEADER`, made by igzip at level 1; the same bytes every time.

    No data give nothing at all: TensorFlow takes an empty member for the end of the file and drops the rest
    without a word.

    Examples
    --------
    >>> import gzip
    >>> gzip.decompress(compress_member(b"patch") + compress_member(b"") + compress_member(b"es"))
    b'patches'
    """
    if not len(data):
        return b""
    return igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP)


@dataclass(frozen=True)
class MemberIndex:
    """Which records lie where in a shard of gzip members.

    Parameters
    ----------
    first_record : int
        Number of the shard's first record, counted over the whole export.
    records : tuple of int
        Records of each group of consecutive members.
    sizes : tuple of int
        Compressed bytes of each group.

    Examples
    --------
    >>> MemberIndex(first_record=0, records=(4, 4, 1), sizes=(5000, 5100, 1300)).total
    9
    """

    first_record: int
    records: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def total(self) -> int:
        """Records of the shard."""
        return sum(self.records)

    def merged(self, count: int) -> MemberIndex:
        """The same index with `count` neighbouring groups made one.

        Examples
        --------
        >>> MemberIndex(0, (4, 4, 1), (5000, 5100, 1300)).merged(2)
        MemberIndex(first_record=0, records=(8, 1), sizes=(10100, 1300))
        """
        starts = range(0, len(self.records), count)
        return MemberIndex(
            self.first_record,
            tuple(sum(self.records[i : i + count]) for i in starts),
            tuple(sum(self.sizes[i : i + count]) for i in starts),
        )


def indexed_header(index: MemberIndex, *, length: int | None = None) -> bytes:
    """A gzip header that carries an index, to stand in place of the first member's plain one.

    Write it instead of the first ``len(MEMBER_HEADER)`` bytes of the shard; the index has the sizes of the
    members with that plain header. An index too large for a header (64 KiB), or for the `length` that was
    kept free for it (see `index_room`), is made coarser by merging neighbouring groups.

    Examples
    --------
    >>> import gzip
    >>> member = compress_member(b"record")
    >>> header = indexed_header(MemberIndex(first_record=7, records=(1,), sizes=(len(member),)))
    >>> gzip.decompress(header + member[len(MEMBER_HEADER) :])
    b'record'
    >>> read_index(header).first_record
    7
    """
    largest = _LARGEST if length is None else length - len(_EXTRA_HEADER) - 6
    payload = _pack(index)
    while len(payload) > largest:
        if len(index.records) == 1:
            raise ValueError(f"A header of {length} bytes has no room for an index.")
        index = index.merged(max(2, -(-len(payload) // largest)))
        payload = _pack(index)
    if length is not None:
        payload += bytes(largest - len(payload))
    return b"".join(
        (
            _EXTRA_HEADER,
            struct.pack("<H", len(payload) + 4),
            _FIELD,
            struct.pack("<H", len(payload)),
            payload,
        )
    )


def index_room(groups: int) -> int:
    """Bytes of a header that surely holds an index of so many groups, or a coarser one.

    Examples
    --------
    >>> index_room(10) < index_room(1000) < index_room(10**6) == HEAD_BYTES
    True
    """
    # Up to five bytes for a count of records, six for a size, and the four numbers in front.
    return min(HEAD_BYTES, len(_EXTRA_HEADER) + 6 + 31 + 11 * max(1, groups))


def read_index(head: bytes | memoryview) -> MemberIndex | None:
    """The index in a shard's first header, or None where it holds none of ours.

    `head` is the first `HEAD_BYTES` of the shard, or all of a smaller one. The first size of the index
    includes this header, so that offsets in the file are running sums of sizes.

    Examples
    --------
    >>> read_index(compress_member(b"by another program")) is None
    True
    """
    head = bytes(head)
    if len(head) < 12 or head[:3] != _EXTRA_HEADER[:3] or not head[3] & 0x04:
        return None
    (extra,) = struct.unpack_from("<H", head, 10)
    position, end = 12, 12 + extra
    while position + 4 <= min(end, len(head)):
        name = head[position : position + 2]
        (size,) = struct.unpack_from("<H", head, position + 2)
        position += 4
        if name == _FIELD:
            return _unpack(head[position : position + size], size, end - len(MEMBER_HEADER))
        position += size
    return None


def inflate_member(data: bytes | memoryview, size: int | None = None) -> tuple[bytes, int]:
    """The content of the gzip member at the start of `data`, and its compressed bytes.

    Where its `size` is known, half of the time is saved.
    """
    inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
    try:
        # One byte more than expected, so that the end of the member is seen, or that it is longer.
        out = inflater.decompress(data, -1 if size is None else size + 1)
    except (ISAL_ERROR, EOFError) as error:
        raise RecordError(f"A gzip member is corrupt ({error}).") from None
    if not inflater.eof:
        if size is not None and len(out) > size:
            raise RecordError(f"A gzip member is corrupt: it holds more than the {size} bytes expected.")
        raise RecordError("A gzip member is truncated.")
    return out, memoryview(data).nbytes - len(inflater.unused_data)


def _pack(index: MemberIndex) -> bytes:
    count = len(index.records)
    pairs = np.empty((count, 2), np.int64)
    pairs[:, 0], pairs[:, 1] = index.records, index.sizes
    numbers = np.concatenate([np.array([_VERSION, index.first_record, count]), pairs.reshape(-1)])
    return encode_varints(numbers)[0].tobytes()


def _unpack(payload: bytes, size: int, longer: int) -> MemberIndex | None:
    if len(payload) < size or not size:
        raise RecordError("The member index in the gzip header is truncated.")
    # A place kept free is filled up with zeros: each of them reads as a number of its own.
    numbers = decode_varints(payload).tolist()
    if numbers[0] != _VERSION:
        return None  # a later version's: the file is plain gzip all the same
    if len(numbers) < 3:
        raise RecordError("The member index in the gzip header is corrupt.")
    first, count, pairs = numbers[1], numbers[2], numbers[3 : 3 + 2 * numbers[2]]
    records, sizes = pairs[::2], pairs[1::2]
    if first < 0 or count < 1 or len(pairs) != 2 * count or min(pairs) < 1:
        raise RecordError("The member index in the gzip header is corrupt.")
    sizes[0] += longer
    return MemberIndex(first, tuple(records), tuple(sizes))
