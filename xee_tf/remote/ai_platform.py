"""AI Platform Prediction: discontinued, but its addresses live on in other servers and in old scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xee_tf.connector import Signature
from xee_tf.errors import OptionError
from xee_tf.remote.answers import Answer
from xee_tf.remote.connector import Client, RemoteConnector
from xee_tf.remote.credentials import open_credentials

__all__ = ["AIPlatformConnector", "check_live_use", "check_part", "check_region"]


def check_live_use(region: str) -> None:
    """Say why no prediction of Google's own AI Platform can be had.

    Raises
    ------
    OptionError
        Always.

    Examples
    --------
    >>> check_live_use("us-central1")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: Google's AI Platform Prediction was discontinued on January 31, 2025: ...
    """
    raise OptionError(
        "Google's AI Platform Prediction was discontinued on January 31, 2025: "
        f"https://{region}-ml.googleapis.com answers no predictions. Deploy the model to Vertex AI and use "
        "Model.from_vertex_ai(endpoint); for another server with AI Platform's addresses, say its base_url."
    )


def check_region(region: str) -> str:
    """The region of a model.

    Raises
    ------
    OptionError
        If it is "global" or not a name.
    """
    if region == "global":
        raise OptionError(
            "region='global' is no place where a model runs: AI Platform's global address only served models "
            "on its oldest machines. Say the region that the model was deployed in, such as 'us-central1'."
        )
    return check_part(region, "region")


def check_part(value: object, name: str) -> str:
    """A name that becomes a part of an address.

    Raises
    ------
    OptionError
        If it cannot.

    Examples
    --------
    >>> check_part("landcover/v1", "model_name")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: model_name must be a name of letters, digits, '-', '_', '.' and ':'; got ...
    """
    if not isinstance(value, str) or re.fullmatch(r"[\w.:-]+", value, re.ASCII) is None:
        raise OptionError(f"{name} must be a name of letters, digits, '-', '_', '.' and ':'; got {value!r}.")
    return value


@dataclass(frozen=True, kw_only=True, repr=False)
class AIPlatformConnector(RemoteConnector):
    """A model behind AI Platform's addresses. It tells nothing of its inputs and outputs.

    Parameters
    ----------
    base_url : str
    project, model : str
    model_version : str or None
        None: the default one.
    """

    base_url: str
    project: str
    model: str
    model_version: str | None = None

    def __str__(self) -> str:
        version = "" if self.model_version is None else f"/versions/{self.model_version}"
        return f"AI Platform {self.base_url}, projects/{self.project}/models/{self.model}{version}"

    def signature(self) -> Signature:
        """Nothing: there is nobody to ask, so that a prediction is built without credentials."""
        return Signature()

    def client(self) -> Client:
        """A session of HTTP."""
        from xee_tf.remote.http_client import HttpClient

        credentials = open_credentials(self.credentials)
        return HttpClient(credentials, self.flow.max_concurrency, self.flow.max_response_bytes)

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        version = "" if self.model_version is None else f"/versions/{self.model_version}"
        return f"{self.base_url}/v1/projects/{self.project}/models/{self.model}{version}:predict"

    def advice(self, answer: Answer) -> str:
        """See `RemoteConnector`."""
        if answer.code in (401, 403):
            if self.credentials is None:
                return "It wants to know who asks: credentials='google' sends Google's default credentials."
            return (
                "The account of Google's default credentials on this machine needs the permission "
                f"ml.versions.predict in the project {self.project!r}: its role AI Platform Model User "
                "(roles/ml.modelUser)."
            )
        return super().advice(answer)
