"""Identities of functions, models, inputs and runs by their content, independent of the process."""

from xee_tf.identity.content import content_hash
from xee_tf.identity.files import UnknownContentError, listed_state, url_state
from xee_tf.identity.run import (
    Content,
    IdentityOptions,
    RunIdentity,
    array_attributes,
    explain_other,
    run_identity,
)

__all__ = [
    "Content",
    "IdentityOptions",
    "RunIdentity",
    "UnknownContentError",
    "array_attributes",
    "content_hash",
    "explain_other",
    "listed_state",
    "run_identity",
    "url_state",
]
