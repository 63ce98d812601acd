"""`GET /v1/status`."""

from babysea_server.keys.wire import StatusData
from babysea_server.kit import json
from babysea_server.kit.calls import Call, Reply
from babysea_server.kit.clock import rfc3339


class KeyRoutes:
    """Operations about the caller's own key."""

    async def status(self, call: Call) -> Reply:
        """Who the key is; answering at all proves that it works."""
        who = call.principal
        return Reply(
            StatusData(
                account_id=who.account_id,
                apikey_id=who.apikey_id,
                apikey_name=who.apikey_name,
                apikey_prefix=who.apikey_prefix,
                apikey_created_at=rfc3339(who.created_at),
                apikey_last_used_at=json.moment(who.last_used_at),
                apikey_expires_at=json.moment(who.expires_at),
            ),
        )
