"""Model specifications, inputs and outputs, and the connectors of local models."""

from xee_tf.models.axes import find_array_dims
from xee_tf.models.feeds import Feed, Item
from xee_tf.models.function import FunctionConnector
from xee_tf.models.hosted import (
    HOSTED_SPELLING,
    HostedKeywords,
    HostedOptions,
    Transport,
    ai_platform_connector,
    tf_serving_connector,
    vertex_ai_connector,
)
from xee_tf.models.inputs import (
    check_overrides,
    check_required,
    group_inputs,
    listed,
    missing_error,
    plan_feeds,
)
from xee_tf.models.keras import keras_connector
from xee_tf.models.kinds import model_kind
from xee_tf.models.mlm import read_mlm
from xee_tf.models.mlm_items import describe_model
from xee_tf.models.model_files import ModelFiles
from xee_tf.models.onnx import OnnxBytesConnector, OnnxConnector, onnx_connector, order_hint
from xee_tf.models.options import MODEL_SPELLING, REPLACED, ModelKeywords, ModelUnit, lead_axes
from xee_tf.models.outputs import Output, channels_hint, plan_outputs
from xee_tf.models.projection import Projection
from xee_tf.models.rows import spec_rows
from xee_tf.models.saved_model import SavedModelConnector, load_signatures, tensorflow_message
from xee_tf.models.saved_model_files import is_prepared, read_meta_graph, require_saved_model
from xee_tf.models.spec import ModelSpec
from xee_tf.models.types import STRING, PixelType, fill_outside, type_name

__all__ = [
    "HOSTED_SPELLING",
    "MODEL_SPELLING",
    "REPLACED",
    "STRING",
    "Feed",
    "FunctionConnector",
    "HostedKeywords",
    "HostedOptions",
    "Item",
    "ModelFiles",
    "ModelKeywords",
    "ModelSpec",
    "ModelUnit",
    "OnnxBytesConnector",
    "OnnxConnector",
    "Output",
    "PixelType",
    "Projection",
    "SavedModelConnector",
    "Transport",
    "ai_platform_connector",
    "channels_hint",
    "check_overrides",
    "check_required",
    "describe_model",
    "fill_outside",
    "find_array_dims",
    "group_inputs",
    "is_prepared",
    "keras_connector",
    "lead_axes",
    "listed",
    "load_signatures",
    "missing_error",
    "model_kind",
    "onnx_connector",
    "order_hint",
    "plan_feeds",
    "plan_outputs",
    "read_meta_graph",
    "read_mlm",
    "require_saved_model",
    "spec_rows",
    "tensorflow_message",
    "tf_serving_connector",
    "type_name",
    "vertex_ai_connector",
]
