"""Exports as Earth Engine writes them, made with TensorFlow and protobuf, independently of the package."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crc32c import crc32c

from tests.optional import optional
from tests.oracle import cut_patches
from xee_tf.wire import encode_varint

tf = optional("tensorflow")
DecodeError = optional("google.protobuf.message", "DecodeError")


@dataclass(frozen=True)
class Export:
    """The mixer, the shards in order, and their content."""

    mixer: Path
    shards: list[Path]
    patches: dict[str, np.ndarray]
    raster: dict[str, np.ndarray]


def write_export(
    folder,
    bands,
    *,
    patch,
    kernel=(1, 1),
    affine=(30.0, 0.0, 700_000.0, 0.0, -30.0, 5_000_000.0),
    crs="EPSG:32633",
    compression="gzip",
    naming="drive",
    max_file_size=2**30,
    records_per_shard=None,
    prefix="scene",
):
    """Write bands (y, x) as Earth Engine would.

    `patch` and `kernel` are (width, height). `compression` is "plain", "gzip" (one member), "members"
    (several members, split at any byte), or "written" (TensorFlow's writer). uint8 bands become bytes, other
    integers int64 lists, and floats float lists. A shard has at most `max_file_size` bytes before
    compression, including the framing, or `records_per_shard` records.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    patches = {
        name: np.stack(cut_patches(band, patch=patch, kernel=kernel, default=0)[0])
        for name, band in bands.items()
    }
    count = len(next(iter(patches.values())))
    height, width = next(iter(bands.values())).shape
    columns, rows = width // patch[0], height // patch[1]
    records = [
        example({name: values[i] for name, values in patches.items()}).SerializeToString()
        for i in range(count)
    ]
    dash = "-" if naming == "drive" else ""
    shards = []
    for number, shard in enumerate(split(records, max_file_size, records_per_shard)):
        suffix = ".tfrecord" if compression == "plain" else ".tfrecord.gz"
        path = folder / f"{prefix}{dash}{number:05d}{suffix}"
        write_records(path, shard, compression)
        shards.append(path)
    mixer = folder / f"{prefix}{dash}mixer.json"
    document = {
        "projection": {"crs": crs, "affine": {"doubleMatrix": list(affine)}},
        "patchDimensions": list(patch),
        "patchesPerRow": columns,
        "totalPatches": count,
    }
    mixer.write_text(json.dumps(document, indent=2))
    covered = {name: band[: rows * patch[1], : columns * patch[0]] for name, band in bands.items()}
    return Export(mixer, shards, patches, covered)


def example(values):
    """Return an Example of numpy arrays, with the kind of list that Earth Engine uses for each dtype."""
    message = tf.train.Example()
    for name, array in values.items():
        feature = message.features.feature[name]
        if array.dtype == np.uint8:
            feature.bytes_list.value.append(array.tobytes())
        elif array.dtype.kind in "iu":
            feature.int64_list.value.extend(array.ravel().tolist())
        else:
            feature.float_list.value.extend(array.ravel().tolist())
    return message


def floats(values):
    """Return a feature with a float list."""
    return tf.train.Feature(float_list=tf.train.FloatList(value=np.ravel(values)))


def delimited(number, data):
    """Encode a length-delimited field of a protobuf message: bytes, a string or a message."""
    return encode_varint(number << 3 | 2) + encode_varint(len(data)) + data


def frame(data):
    """The data of a record with the framing of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


def masked_crc(data):
    """The masked CRC-32C of data: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def parse_message(kind, data):
    """Parse an Example or a SequenceExample (the class `kind`) as protobuf does; None if it is invalid.

    A message is invalid if Python's protobuf (upb) or C++ protobuf, which TensorFlow uses, refuses it, as
    xee_tf does: upb accepts the field number 0 in unknown groups, and C++ drops the bits of a field number
    beyond its range. The values are those of C++; upb ignores map entries that have unknown fields.
    """
    names = [field.name for field in kind.DESCRIPTOR.fields]
    types = [tf.string] * len(names)
    try:
        kind.FromString(data)
        # With sanitize=True, C++ protobuf parses the message and writes it again.
        parts = tf.io.decode_proto(data, kind.DESCRIPTOR.full_name, names, types, sanitize=True).values
    except (DecodeError, tf.errors.DataLossError):
        return None
    message = kind()
    for name, part in zip(names, parts, strict=True):
        getattr(message, name).ParseFromString(b"".join(part.numpy()))
    return message


def parsed_tensor(data, array):
    """Parse a TensorProto with TensorFlow, with the dtype of an array."""
    dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
    return np.asarray(tf.io.parse_tensor(data, dtype).numpy(), array.dtype)


def split(records, max_file_size, count):
    """Split records into shards."""
    if count:
        return [records[start : start + count] for start in range(0, len(records), count)]
    shards, size = [[]], 0
    for record in records:
        framed = len(record) + 16
        if shards[-1] and size + framed > max_file_size:
            shards.append([])
            size = 0
        shards[-1].append(record)
        size += framed
    return shards


def write_records(path, records, compression):
    """Write a shard with TensorFlow's writer, and compress it with Python's gzip."""
    if compression == "written":
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for record in records:
                writer.write(record)
        return
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    data = path.read_bytes()
    if compression == "gzip":
        path.write_bytes(gzip.compress(data, mtime=0))
    elif compression == "members":
        step = max(1, len(data) // 3 - 7)
        parts = [data[start : start + step] for start in range(0, len(data), step)]
        path.write_bytes(b"".join(gzip.compress(part) for part in parts))
