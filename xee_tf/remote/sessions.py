"""HTTP sessions that do not send credentials through a proxy without TLS."""

from __future__ import annotations

from typing import Any

from xee_tf.extras import extra

with extra("hosted", "A hosted model"):
    import requests

__all__ = ["DirectSession"]


class DirectSession(requests.Session):
    """A session that uses the proxies of the environment only for https, which proxies cannot read.

    A proxy for http reads requests: also those to this machine, where credentials may be sent without TLS,
    and those to the metadata server of Google Cloud, which issues tokens.
    """

    def merge_environment_settings(self, url: Any, *settings: Any) -> Any:
        """See `requests.Session`."""
        merged = super().merge_environment_settings(url, *settings)
        if str(url).lower().startswith("http:"):
            merged["proxies"] = {}
        return merged
