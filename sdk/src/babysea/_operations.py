"""The operations of the API: method and path of each, and nowhere else."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from babysea._errors import InvalidInputError

_MODEL = re.compile(r"[a-z0-9_-][a-z0-9._-]*/[a-z0-9_-][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, without the server's address and what every request carries."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Method and path, in which names in braces are filled in."""

    method: str
    path: str

    def request(self, query: Mapping[str, Any] | None = None, **places: str) -> Request:
        """The request; what is None in `query` is left out."""
        given = [
            (name, str(value).lower() if isinstance(value, bool) else value)
            for name, value in (query or {}).items()
            if value is not None
        ]
        path = self.path.format(**places)
        return Request(self.method, f"{path}?{urlencode(given)}" if given else path)


STATUS = Operation("GET", "/v1/status")
USAGE = Operation("GET", "/v1/usage")
ACCOUNT = Operation("GET", "/v1/user/account")
BILLING = Operation("GET", "/v1/user/billing")
ESTIMATE = Operation("GET", "/v1/estimate/{model_identifier}")
GENERATE = Operation("POST", "/v1/generate/{media}/{model_identifier}")
LIST_GENERATIONS = Operation("GET", "/v1/content/list")
GET_GENERATION = Operation("GET", "/v1/content/{generation_id}")
DELETE_GENERATION = Operation("DELETE", "/v1/content/{generation_id}")
CANCEL_GENERATION = Operation("POST", "/v1/content/generation/cancel/{generation_id}")
HEALTH_INFERENCE = Operation("GET", "/v1/health/inference/{subject}")
HEALTH_STORAGE = Operation("GET", "/v1/health/storage")
HEALTH_CACHE = Operation("GET", "/v1/health/cache")
LIBRARY_PROVIDERS = Operation("GET", "/v1/library/providers")
LIBRARY_MODELS = Operation("GET", "/v1/library/models")


def model_identifier(text: str) -> str:
    """`text`, if a path can hold it as it is.

    Raises:
        InvalidInputError: it is no identifier.
    """
    if _MODEL.fullmatch(text):
        return text
    raise InvalidInputError("a model is identified by lab/name, such as bfl/flux-schnell")


def generation_id(text: str) -> str:
    """`text` in its usual spelling, if it is the id of a generation.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return str(UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise InvalidInputError("the id of a generation is a UUID") from None
