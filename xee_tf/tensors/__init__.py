"""Convert between `TensorProto` messages and numpy arrays, and their element types."""

from xee_tf.tensors.protos import (
    decode_tensor,
    decoded_limit,
    encode_tensors,
    is_tensor,
    tensor_pieces,
    tensor_size,
    value_sizes,
)
from xee_tf.tensors.types import STRING, TensorType, tensor_type, type_of_number

__all__ = [
    "STRING",
    "TensorType",
    "decode_tensor",
    "decoded_limit",
    "encode_tensors",
    "is_tensor",
    "tensor_pieces",
    "tensor_size",
    "tensor_type",
    "type_of_number",
    "value_sizes",
]
