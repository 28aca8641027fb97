"""AI Platform Prediction: discontinued, but its addresses live on in other servers and in old scripts."""

from __future__ import annotations

from dataclasses import dataclass

from xee_tf.remote.vertex_ai import GoogleConnector

__all__ = ["AIPlatformConnector"]


@dataclass(frozen=True, kw_only=True, repr=False)
class AIPlatformConnector(GoogleConnector):
    """A model behind AI Platform's addresses; without a version the default one."""

    base_url: str
    project: str
    model: str
    model_version: str | None = None

    permission = "ml.versions.predict"
    role = "AI Platform Model User (roles/ml.modelUser)"

    def __str__(self) -> str:
        return f"AI Platform {self.base_url}, {self._resource}"

    @property
    def address(self) -> str:
        """See `RemoteConnector`."""
        return f"{self.base_url}/v1/{self._resource}:predict"

    @property
    def _resource(self) -> str:
        version = "" if self.model_version is None else f"/versions/{self.model_version}"
        return f"projects/{self.project}/models/{self.model}{version}"
