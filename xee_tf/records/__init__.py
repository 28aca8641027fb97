"""Bytes only: Example records and TFRecord framing, to and from numpy arrays."""

from xee_tf.records.crc import join_crcs
from xee_tf.records.decode import decode_features, decode_records
from xee_tf.records.encode import Encoded, encode_records
from xee_tf.records.feature import STORED, STRINGS, Feature, FeatureTypes, Kind, kind_of, written_dtype
from xee_tf.records.framing import (
    FOOTER,
    FRAMING,
    HEADER,
    corrupt,
    count_right,
    footers,
    frame,
    frame_offsets,
    iter_frames,
    read_length,
    run_crc,
)
from xee_tf.records.layout import RecordLayout, context_head
from xee_tf.records.parse import decode_example, decode_sequence_example, read_layout, read_sequence_layout
from xee_tf.records.ragged import Ragged
from xee_tf.records.walk import FeatureValues, Order

__all__ = [
    "FOOTER",
    "FRAMING",
    "HEADER",
    "STORED",
    "STRINGS",
    "Encoded",
    "Feature",
    "FeatureTypes",
    "FeatureValues",
    "Kind",
    "Order",
    "Ragged",
    "RecordLayout",
    "context_head",
    "corrupt",
    "count_right",
    "decode_example",
    "decode_features",
    "decode_records",
    "decode_sequence_example",
    "encode_records",
    "footers",
    "frame",
    "frame_offsets",
    "iter_frames",
    "join_crcs",
    "kind_of",
    "read_layout",
    "read_length",
    "read_sequence_layout",
    "run_crc",
    "written_dtype",
]
