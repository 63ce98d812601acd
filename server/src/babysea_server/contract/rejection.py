"""The firewall's one answer: BSE1010 that names the rule, the place, and what is allowed there."""

from typing import Any, Literal

from babysea_server.errors import FIREWALL_REJECTED, ApiError

Rule = Literal[
    "malformed_http",
    "head_too_large",
    "unknown_host",
    "unknown_path",
    "malformed_path",
    "invalid_path_parameter",
    "method_not_allowed",
    "method_override",
    "repeated_header",
    "ambiguous_framing",
    "malformed_query",
    "unknown_query_parameter",
    "repeated_query_parameter",
    "invalid_query_parameter",
    "content_type",
    "unexpected_body",
]

_SHOWN_CHARACTERS = 60


def rejection(rule: Rule, location: str, message: str, allowed: Any) -> ApiError:
    """The error to raise; `location` is e.g. `path`, `query.days` or `header.host`."""
    return ApiError(
        FIREWALL_REJECTED, message, details={"rule": rule, "location": location, "allowed": allowed}
    )


def shown(text: str) -> str:
    """What the caller sent, short and in ASCII, so that it can stand in a sentence."""
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
