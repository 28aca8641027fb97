"""Compress runs of records as gzip members, with an index in the header of the first member.

A gzip file may consist of several members, which TensorFlow, gzip and zlib read as one stream. Members can
therefore be compressed separately, in parallel. The header of the first member of a shard has an index in an
"extra field" (RFC 1952, section 2.3.1.1), which other readers skip. With the index, a few records can be read
without decompressing the records before them.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import igzip_lib, isal_zlib

from xee_tf.errors import RecordError
from xee_tf.shards.limits import inflation_error
from xee_tf.varints import decode_varints, encode_varints

__all__ = [
    "EMPTY_TAIL",
    "HEAD_BYTES",
    "IMAGE_MEMBER",
    "MEMBER_HEADER",
    "PREDICTION_MEMBER",
    "TABLE_MEMBER",
    "MemberIndex",
    "compress_member",
    "decompress",
    "index_header_size",
    "indexed_header",
    "inflate_member",
    "member_edges",
    "patches_per_member",
    "read_index",
]

MEMBER_HEADER = bytes.fromhex("1f8b08000000000000ff")
"""The header of every member from `compress_member`: no name, time 0, unknown system."""

EMPTY_TAIL = b"\x03\x00" + bytes(8)
"""What follows `MEMBER_HEADER` in an empty member: its deflate stream and trailer."""

HEAD_BYTES = 10 + 2 + 0xFFFF
"""Maximum size of the first header of a shard in bytes, including the index."""

IMAGE_MEMBER = 64 << 10
"""Approximate bytes of records in a gzip member of an image.

Large enough to compress well, small enough that reading one patch decompresses little else.
"""

TABLE_MEMBER = 1 << 20
"""Approximate bytes of records in a gzip member of a table, whose rows are mostly read sequentially."""

PREDICTION_MEMBER = 1 << 20
"""Approximate bytes of records in a gzip member of predictions, which are read as a whole.

Fewer members need a smaller index, for which space is reserved before the first member is written.
"""

_FIRST = 12  # bytes to compress separately: the length of a record and its CRC
_EXTRA_HEADER = bytes.fromhex("1f8b08040000000000ff")  # MEMBER_HEADER with FLG.FEXTRA
_FIELD = b"XF"
_VERSION = 1
_INDEX_HEAD = 31  # maximum bytes of the three numbers before the groups
_LARGEST = 0xFFFF - 4  # XLEN includes the four bytes of the subfield header
ISAL_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # the stub declares an instance


def patches_per_member(patch_bytes: int, columns: int, member_bytes: int) -> int:
    """Return the number of patches in a gzip member, at least one; members end with each row of patches.

    The result depends on the records only, because the bytes of an export must not depend on the chunks of
    its source.

    Parameters
    ----------
    patch_bytes : int
        Size of all records of a patch with their framing in bytes; the maximum if it varies.
    columns : int
        Number of patches in a row.
    member_bytes : int
        Approximate bytes of records in a member.

    Examples
    --------
    >>> [patches_per_member(size, 100, IMAGE_MEMBER) for size in (100, 10_000, 1_000_000)]
    [100, 6, 1]
    """
    return min(columns, max(1, member_bytes // patch_bytes))


def member_edges(offsets: npt.NDArray[np.int64], member_bytes: int) -> list[int]:
    """Return the records at which gzip members begin, and the end, if the size of records varies.

    Parameters
    ----------
    offsets : ndarray of int64
        The first byte of each record, and the end of the last one.
    member_bytes : int
        Maximum size of a member before compression in bytes, unless a single record is larger.

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


def compress_member(data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]) -> list[bytes]:
    """Compress data as one gzip member that starts with `MEMBER_HEADER`, with igzip at level 1.

    Returns the pieces of the member, of which the first one contains the header. For empty data there are
    none, because TensorFlow treats an empty member as the end of the file and silently ignores the rest.

    The result is deterministic. If igzip receives all data at once, it is not: when igzip starts with more
    than 16 bytes, it enters one of the first positions into its table of matches under a number that depends
    on an address in memory (the register ``rcx`` is not set at ``write_first_byte`` of ISA-L 2.31). In about
    one of 3,000 threads, a match is then missed or found, and the bytes differ, although they are valid. The
    first bytes are therefore compressed separately; the rest can still refer to them.

    Examples
    --------
    >>> import gzip
    >>> gzip.decompress(b"".join(compress_member(b"patch") + compress_member(b"") + compress_member(b"es")))
    b'patches'
    """
    if not len(data):
        return []
    stream = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    first, flushed = stream.compress(data[:_FIRST]), stream.flush(isal_zlib.Z_SYNC_FLUSH)
    rest, end = stream.compress(data[_FIRST:]), stream.flush()
    return [piece for piece in (first + flushed, rest, end) if piece]


@dataclass(frozen=True)
class MemberIndex:
    """The number of records and the compressed size of groups of gzip members in a shard.

    Parameters
    ----------
    first_record : int
        Number of the first record of the shard, counted over the export.
    records : tuple of int
        Number of records in each group of consecutive members.
    sizes : tuple of int
        Compressed size of each group in bytes.

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
        """Number of records in the shard."""
        return sum(self.records)

    def merged(self, count: int) -> MemberIndex:
        """Return the index with each `count` consecutive groups merged.

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
    """Return a gzip header with an index, which replaces the header of the first member.

    Write it instead of the first ``len(MEMBER_HEADER)`` bytes of the shard; the sizes in the index include
    that original header. If the index is too large for a header (64 KiB), or for the `length` that was
    reserved (see `index_header_size`), consecutive groups are merged.

    Examples
    --------
    >>> import gzip
    >>> member = b"".join(compress_member(b"record"))
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
            raise ValueError(f"A header of {length} bytes is too small for an index.")
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


def index_header_size(groups: int, *, records: int = 1 << 34, size: int = 1 << 41) -> int:
    """Return the size of a header in bytes that is large enough for an index of `groups` groups.

    It is at most `HEAD_BYTES`; the groups of a larger index are merged.

    Parameters
    ----------
    groups : int
        Number of groups of members.
    records, size : int
        Maximum number of records and of compressed bytes in a group.

    Examples
    --------
    >>> index_header_size(10) < index_header_size(1000) < index_header_size(10**6) == HEAD_BYTES
    True
    """
    pair = len(encode_varints(np.array([records, size]))[0])
    return min(HEAD_BYTES, len(_EXTRA_HEADER) + 6 + _INDEX_HEAD + pair * max(1, groups))


def read_index(head: bytes | memoryview) -> MemberIndex | None:
    """Read the index from the first header of a shard; None if there is no index of this package.

    `head` is the first `HEAD_BYTES` of the shard, or the whole shard if it is smaller. The first size in the
    returned index includes this header, so that offsets in the file are cumulative sums of the sizes.

    Examples
    --------
    >>> read_index(b"".join(compress_member(b"by another program"))) is None
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


def inflate_member(
    data: bytes | memoryview,
    size: int | None = None,
    *,
    limit: int = 1 << 31,
    held: int = 0,
    feed: int | None = None,
) -> tuple[bytes, int]:
    """Decompress the gzip member at the start of `data`; return its content and its compressed size.

    Parameters
    ----------
    data : bytes-like
        The member, which may be followed by others.
    size : int, optional
        Maximum size of the content in bytes, if it is known; halves the time.
    limit : int
        Maximum size of the content in bytes, if its size is not known.
    held : int
        Number of bytes from the members before it, which count towards `limit`.
    feed : int, optional
        Number of bytes to decompress first; the decompressor copies those after the member. Default: all.

    Raises
    ------
    RecordError
        If the member is corrupt, or its content is longer than `size` or `limit`.
    """
    inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
    view = memoryview(data).cast("B")
    feed = feed or len(view)
    want = (limit - held if size is None else size) + 1  # one byte more, to detect that the content is longer
    parts: list[bytes] = []
    position = 0
    while want and not inflater.eof:
        fed = view[position : position + feed] if inflater.needs_input else b""
        if inflater.needs_input and not len(fed):
            raise RecordError("A gzip member is truncated.")
        parts.append(decompress(inflater, fed, want, "A gzip member"))
        position, feed = position + len(fed), 2 * feed
        want -= len(parts[-1])
    if not want:
        if size is None:
            raise inflation_error("A group of gzip members" if held else "A gzip member", limit)
        raise RecordError(f"A gzip member is corrupt: it has more than the expected {size} bytes.")
    return parts[0] if len(parts) == 1 else b"".join(parts), position - len(inflater.unused_data)


def decompress(inflater: Any, data: Any, size: int, what: str) -> bytes:
    """Decompress up to `size` bytes; raise a RecordError that names `what` if igzip cannot.

    The error of igzip is not kept as its context, because it cannot be pickled.
    """
    try:
        found: bytes = inflater.decompress(data, size)
    except (ISAL_ERROR, EOFError) as error:
        reason = re.sub(r"^Error -?\d+ ", "", str(error)).rstrip(".").lower()
    else:
        return found
    raise RecordError(f"{what} is corrupt ({reason}).")


def _pack(index: MemberIndex) -> bytes:
    count = len(index.records)
    pairs = np.empty((count, 2), np.int64)
    pairs[:, 0], pairs[:, 1] = index.records, index.sizes
    numbers = np.concatenate([np.array([_VERSION, index.first_record, count]), pairs.reshape(-1)])
    return encode_varints(numbers)[0].tobytes()


def _unpack(payload: bytes, size: int, longer: int) -> MemberIndex | None:
    if len(payload) < size or not size:
        raise RecordError("The member index in the gzip header is truncated.")
    # Reserved space is padded with zeros, each of which is decoded as a number.
    numbers = decode_varints(payload).tolist()
    if numbers[0] != _VERSION:
        return None  # from a later version; the file can still be read as plain gzip
    if len(numbers) < 3:
        raise RecordError("The member index in the gzip header is corrupt.")
    first, count, pairs = numbers[1], numbers[2], numbers[3 : 3 + 2 * numbers[2]]
    records, sizes = pairs[::2], pairs[1::2]
    if first < 0 or count < 1 or len(pairs) != 2 * count or min(pairs) < 1:
        raise RecordError("The member index in the gzip header is corrupt.")
    sizes[0] += longer
    return MemberIndex(first, tuple(records), tuple(sizes))
