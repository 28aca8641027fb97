"""Bytes only: Example records, tensors, TFRecord framing and gzip members, to and from numpy arrays."""

from xee_tf.records.decoding import Batch, decode_example, decode_frames, read_layout
from xee_tf.records.example import (
    Encoded,
    Feature,
    FeatureTypes,
    Kind,
    RecordLayout,
    kind_of,
)
from xee_tf.records.framing import FRAMING, frame, iter_frames, mask_crc
from xee_tf.records.sequence import SequenceLayout
from xee_tf.records.sequence_decoding import Sequences, decode_sequences
from xee_tf.records.tensors import (
    decode_tensor,
    encode_tensor,
    encode_tensors,
    tensor_bound,
    tensor_pieces,
    tensor_size,
    value_sizes,
)
from xee_tf.records.wire import Values

__all__ = [
    "FRAMING",
    "Batch",
    "Encoded",
    "Feature",
    "FeatureTypes",
    "Kind",
    "RecordLayout",
    "SequenceLayout",
    "Sequences",
    "Values",
    "decode_example",
    "decode_frames",
    "decode_sequences",
    "decode_tensor",
    "encode_tensor",
    "encode_tensors",
    "frame",
    "iter_frames",
    "kind_of",
    "mask_crc",
    "read_layout",
    "tensor_bound",
    "tensor_pieces",
    "tensor_size",
    "value_sizes",
]
