"""Bytes only: Example records and TFRecord framing, to and from numpy arrays."""

from xee_tf.records.decode import FeatureValues, Order, Records, decode_features, decode_records
from xee_tf.records.encode import Encoded, encode_records
from xee_tf.records.feature import STORED, Feature, FeatureTypes, Kind, kind_of, written_dtype
from xee_tf.records.framing import FRAMING, frame, iter_frames
from xee_tf.records.layout import RecordLayout
from xee_tf.records.parse import (
    Values,
    decode_example,
    decode_sequence_example,
    read_layout,
    read_sequence_layout,
)
from xee_tf.records.ragged import Ragged
from xee_tf.varints import decode_varints, encode_varints

__all__ = [
    "FRAMING",
    "STORED",
    "Encoded",
    "Feature",
    "FeatureTypes",
    "FeatureValues",
    "Kind",
    "Order",
    "Ragged",
    "RecordLayout",
    "Records",
    "Values",
    "decode_example",
    "decode_features",
    "decode_records",
    "decode_sequence_example",
    "decode_varints",
    "encode_records",
    "encode_varints",
    "frame",
    "iter_frames",
    "kind_of",
    "read_layout",
    "read_sequence_layout",
    "written_dtype",
]
