"""A model in TensorFlow Serving, over REST or gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from xee_tf.connector import Signature
from xee_tf.errors import MissingModelError, ModelError
from xee_tf.remote.addresses import GrpcTarget, check_grpc_target
from xee_tf.remote.answers import Answer
from xee_tf.remote.connector import Ask, RemoteConnector
from xee_tf.remote.serving_metadata import metadata_request, signature_of_json, signature_of_message

__all__ = ["TFServingConnector", "Transport"]

Transport = Literal["rest", "grpc"]

_SERVICE = "/tensorflow.serving.PredictionService"


@dataclass(frozen=True, kw_only=True, repr=False)
class TFServingConnector(RemoteConnector):
    """A model in TensorFlow Serving. Which version and signature is meant is said by ``payload.model_spec``.

    Parameters
    ----------
    url : str
        As `check_url` or `str` of `check_grpc_target` gives it.
    transport : {"rest", "grpc"}
    """

    url: str
    transport: Transport

    def __str__(self) -> str:
        spec = self.payload.model_spec
        which = ""
        if spec.version is not None:
            which = f"version {spec.version} of "
        elif spec.label is not None:
            which = f"version {spec.label!r} of "
        signature = f", signature {spec.signature_name!r}" if spec.signature_name else ""
        return f"TensorFlow Serving {self.url}{signature}, {which}model {spec.name!r}"

    @property
    def grpc_target(self) -> GrpcTarget | None:
        """See `RemoteConnector`."""
        return check_grpc_target(self.url) if self.transport == "grpc" else None

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        return f"{_SERVICE}/Predict" if self.transport == "grpc" else f"{self._resource}:predict"

    @property
    def _resource(self) -> str:
        spec = self.payload.model_spec
        path = f"{self.url}/v1/models/{quote(spec.name, safe='')}"
        if spec.version is not None:
            return f"{path}/versions/{spec.version}"
        return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"

    def ask_signature(self, ask: Ask) -> Signature:
        """From the server's metadata; those that have none tell nothing.

        Raises
        ------
        MissingModelError
            If the server has no such model.
        ModelError
            If it has no such signature, does not answer, or takes other tensors than are sent.
        """
        spec = self.payload.model_spec
        if self.transport == "grpc":
            outcome, read = ask(f"{_SERVICE}/GetModelMetadata", metadata_request(spec)), signature_of_message
        else:
            outcome, read = ask(f"{self._resource}/metadata", None), signature_of_json
        answer = outcome.answer
        if not answer.ok:
            if answer.code in (404, 405, 501) and not _says_the_model_is_missing(answer, spec.name):
                return Signature()
            error = MissingModelError if answer.code == 404 else ModelError
            raise error(self.failure(outcome))
        found = read(answer.body, spec.signature_name, str(self))
        return self.payload.batch_signature(found, str(self))


def _says_the_model_is_missing(answer: Answer, name: str) -> bool:
    """Of a "not found": whether it is about the model, rather than about the address."""
    return answer.code == 404 and name in answer.words
