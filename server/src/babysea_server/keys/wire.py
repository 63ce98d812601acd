"""What the key operations send: `GET /v1/status`."""

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from babysea_server.kit.wire import Moment


class StatusData(Struct, frozen=True, kw_only=True):
    """The key that made the call, and its account."""

    account_id: UUID
    apikey_id: UUID
    apikey_name: Annotated[str, Meta(description="The name given at creation.")]
    apikey_prefix: Annotated[str, Meta(description="The key's first nine characters; never the key.")]
    apikey_created_at: Moment
    apikey_last_used_at: Moment | None
    apikey_expires_at: Moment | None
