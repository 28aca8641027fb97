"""Encode numpy arrays as framed Example and SequenceExample records, and decode such records."""

from xee_tf.records.crc import combine_crcs
from xee_tf.records.decode import decode_features, decode_records
from xee_tf.records.encode import Encoded, encode_records
from xee_tf.records.feature import LIST_DTYPES, Feature, FeatureTypes, Kind, kind_of, written_dtype
from xee_tf.records.framing import (
    FOOTER,
    FRAMING,
    HEADER,
    corrupt_record,
    count_valid,
    frame_footers,
    frame_offsets,
    frames_crc,
    iter_frames,
    read_length,
    run_crc,
    truncated_record,
)
from xee_tf.records.layout import MOST_RECORD_BYTES, RecordLayout, context_head
from xee_tf.records.parse import decode_sequence_example, read_layout, read_sequence_layout
from xee_tf.records.ragged import Ragged
from xee_tf.records.walk import FeatureValues, Order, by_name

__all__ = [
    "FOOTER",
    "FRAMING",
    "HEADER",
    "LIST_DTYPES",
    "MOST_RECORD_BYTES",
    "Encoded",
    "Feature",
    "FeatureTypes",
    "FeatureValues",
    "Kind",
    "Order",
    "Ragged",
    "RecordLayout",
    "by_name",
    "combine_crcs",
    "context_head",
    "corrupt_record",
    "count_valid",
    "decode_features",
    "decode_records",
    "decode_sequence_example",
    "encode_records",
    "frame_footers",
    "frame_offsets",
    "frames_crc",
    "iter_frames",
    "kind_of",
    "read_layout",
    "read_length",
    "read_sequence_layout",
    "run_crc",
    "truncated_record",
    "written_dtype",
]
