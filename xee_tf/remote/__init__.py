"""Connectors to models on servers, over HTTP and gRPC."""

from xee_tf.remote.addresses import check_grpc_target, check_url
from xee_tf.remote.connector import Flow, RemoteConnector
from xee_tf.remote.credentials import Credentials, check_credentials
from xee_tf.remote.google import (
    DIRECT_RAW_PREDICT,
    AIPlatformConnector,
    Route,
    VertexAIConnector,
    check_endpoint,
    shared_url,
)
from xee_tf.remote.numbers import content_length, parse_int64
from xee_tf.remote.responses import Code
from xee_tf.remote.serving_metadata import (
    GET_METADATA,
    SIGNATURES,
    decode_signature,
)
from xee_tf.remote.statistics import PredictionStats, collect_stats
from xee_tf.remote.tf_serving import TFServingConnector

__all__ = [
    "DIRECT_RAW_PREDICT",
    "GET_METADATA",
    "SIGNATURES",
    "AIPlatformConnector",
    "Code",
    "Credentials",
    "Flow",
    "PredictionStats",
    "RemoteConnector",
    "Route",
    "TFServingConnector",
    "VertexAIConnector",
    "check_credentials",
    "check_endpoint",
    "check_grpc_target",
    "check_url",
    "collect_stats",
    "content_length",
    "decode_signature",
    "parse_int64",
    "shared_url",
]
