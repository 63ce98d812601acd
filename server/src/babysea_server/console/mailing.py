"""Mail that is not a notice: links that open something. Sent at once and never kept, so that no table holds them."""

import asyncio
from datetime import datetime
from uuid import UUID

import structlog

from babysea_server.accounts.mail import MailRefusedError, MailUnavailableError, Outgoing
from babysea_server.accounts.notices import DueMail
from babysea_server.kit.clock import Clock
from babysea_server.kit.ids import uuid7
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

_AT_ONCE_MAX = 50
_AGAIN_S = 5.0


class Mailing:
    """Sends in the background: whoever asks is answered in the same time, whether there is such an address or not.

    Args:
        server: None: the operator has no mail server.
    """

    def __init__(self, server: Outgoing | None, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def works(self) -> bool:
        """Whether there is a mail server."""
        return self._server is not None

    def post(
        self, address: str, kind: str, text: str, *, account_id: UUID, account_name: str, now: datetime
    ) -> None:
        """Send it soon; what fails twice is told in the log and given up, and so is what is too much at once."""
        if self._server is None or len(self._tasks) >= _AT_ONCE_MAX:
            _log.warning("mail_not_posted", kind=kind, waiting=len(self._tasks))
            return
        mail = DueMail(uuid7(), account_id, account_name, address, kind, text, now, 1)
        task = asyncio.create_task(self._send(self._server, mail), name="post-mail")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, server: Outgoing, mail: DueMail) -> None:
        try:
            try:
                await server.send(mail)
            except MailUnavailableError:
                await self._clock.sleep(_AGAIN_S)
                await server.send(mail)
        except (MailRefusedError, MailUnavailableError) as error:
            _log.warning("mail_given_up", kind=mail.kind, error=str(error))

    async def close(self) -> None:
        """Stop; what was not sent is not sent."""
        await end(list(self._tasks))
