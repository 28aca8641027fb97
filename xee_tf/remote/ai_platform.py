"""AI Platform Prediction: discontinued, but its addresses live on in other servers and in old scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xee_tf.errors import OptionError
from xee_tf.remote.vertex_ai import GoogleConnector

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
class AIPlatformConnector(GoogleConnector):
    """A model behind AI Platform's addresses.

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

    permission = "ml.versions.predict"
    role = "AI Platform Model User (roles/ml.modelUser)"

    def __str__(self) -> str:
        return f"AI Platform {self.base_url}, {self._resource}"

    @property
    def google_project(self) -> str:
        """See `GoogleConnector`."""
        return self.project

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        return f"{self.base_url}/v1/{self._resource}:predict"

    @property
    def _resource(self) -> str:
        version = "" if self.model_version is None else f"/versions/{self.model_version}"
        return f"projects/{self.project}/models/{self.model}{version}"
