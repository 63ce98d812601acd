"""Mail: sends notices that are due over the operator's SMTP server.

Mail comes twice only if the server's answer is lost, or a worker dies before it has noted it; the Message-ID is the
same then.
"""

import asyncio
import ssl
from contextlib import suppress
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from typing import Protocol
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import aiosmtplib
import structlog

from babysea_server.accounts import notices
from babysea_server.accounts.notices import DueMail
from babysea_server.db.pool import Database

_log = structlog.get_logger(__name__)

EVERY_S = 5.0
#: Seconds until the next try after each that failed; after one more it is given up, some nine hours later.
PAUSES_S = (60.0, 300.0, 1800.0, 7200.0, 21600.0)
#: For a whole try, from connecting to the last answer.
DEADLINE_S = 30.0
#: Longer than a try can last, so that nobody else sends what is being sent.
_LEASE_S = 2 * DEADLINE_S
_QUIT_S = 2.0
_AT_ONCE = 5
_BATCHES_MAX = 20
_SKIPPED_AT_ONCE = 1_000

_SUBJECTS = {
    "credits.low_balance": "Your balance is low",
    "webhook.disabled": "A webhook endpoint was disabled",
    "auth.password_reset": "Reset your password",
    "auth.email_change": "Confirm your new address",
    "auth.email_changed": "Your address was changed",
    "account.invitation": "You are invited to an account",
}
_STARTTLS = {"required": True, "optional": None, "never": False}
_PORTS = {"smtp": 587, "smtps": 465}


class MailRefusedError(Exception):
    """The server will never take this mail, or there is no such address."""


class MailUnavailableError(Exception):
    """The mail was not taken this time. The message never holds credentials, nor what the server said."""


class Outgoing(Protocol):
    """Whoever takes mail."""

    async def send(self, mail: DueMail) -> None:
        """Send it.

        Raises:
            MailRefusedError, MailUnavailableError
        """
        ...


class MailServer:
    """The operator's SMTP server, a connection for each mail.

    Args:
        url: `smtp://user:password@host:587?starttls=required|optional|never`, or `smtps://` for TLS from the start.
            Both port and credentials may be left out; without `starttls` it is required.
        sender: address that mail comes from, perhaps with a name: `BabySea <notices@example.com>`.
        tls: whom to trust; by default the system's authorities.
        deadline_s: for a whole try.

    Raises:
        ValueError: URL or sender cannot be used; the message holds no part of the URL.
    """

    def __init__(
        self, url: str, sender: str, *, tls: ssl.SSLContext | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        parts, port, starttls = _split(url)
        self._host = parts.hostname or ""
        self._port = port
        self._secure = parts.scheme == "smtps"
        self._starttls = starttls
        self._user = None if parts.username is None else unquote(parts.username)
        self._password = None if parts.password is None else unquote(parts.password)
        self._sender = _sender(sender)
        self._tls = tls or ssl.create_default_context()
        self._deadline_s = deadline_s

    def __repr__(self) -> str:
        """Without the credentials."""
        return f"MailServer({self._host}:{self._port})"

    async def send(self, mail: DueMail) -> None:
        """Send one mail within the deadline.

        Raises:
            MailRefusedError: it would be refused again.
            MailUnavailableError: it may be taken later; also while the server refuses the credentials or the sender.
        """
        message = compose(mail, self._sender)
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=self._password,
            use_tls=self._secure,
            start_tls=self._starttls,
            tls_context=self._tls,
            timeout=self._deadline_s,
            local_hostname=self._sender.domain,  # else the machine's name is looked up, however long it takes
        )
        try:
            async with asyncio.timeout(self._deadline_s):
                await client.connect()
                await client.send_message(message, sender=self._sender.addr_spec, recipients=[mail.address])
            with suppress(aiosmtplib.SMTPException, OSError):  # it is sent, however the parting goes
                await client.quit(timeout=_QUIT_S)
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [refusal.code for refusal in error.recipients]
            raise _fault(error, codes, final=min(codes, default=0) >= 500) from None
        except aiosmtplib.SMTPResponseException as error:
            final = isinstance(error, aiosmtplib.SMTPDataError) and error.code >= 500
            raise _fault(error, [error.code], final=final) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise _fault(error, [], final=False) from None
        finally:
            client.close()


def mail_server(url: str | None, sender: str | None) -> MailServer | None:
    """The server that the settings `smtp_url` and `smtp_from` name; None without them.

    Raises:
        ValueError: see `MailServer`; also a URL without a sender.
    """
    if url is None:
        return None
    if sender is None:
        raise ValueError("smtp_from is needed beside smtp_url")
    return MailServer(url, sender)


def compose(mail: DueMail, sender: Address) -> EmailMessage:
    """A notice as plain text.

    Raises:
        MailRefusedError: the account's address is none, or more than one.
    """
    message = EmailMessage(policy=SMTP)
    try:
        recipient = Address(addr_spec=mail.address)
        message["To"] = recipient
    except (MessageError, ValueError, IndexError):
        raise MailRefusedError("not an address") from None
    if not recipient.username or not recipient.domain:
        raise MailRefusedError("not an address")
    message["From"] = sender
    message["Subject"] = _SUBJECTS.get(mail.kind, "Notice about your account")
    message["Date"] = mail.created_at
    message["Message-ID"] = f"<{mail.id}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{mail.text}\n\nAccount: {mail.account_name} ({mail.account_id})\n")
    return message


class MailJob:
    """Sends the notices that are due; workers share the work.

    Args:
        server: None: no mail is sent, also not later for what happens now.
    """

    def __init__(self, db: Database, server: Outgoing | None) -> None:
        self._db = db
        self._server = server

    async def run(self) -> None:
        """Send what is due, a few at once.

        Raises:
            DatabaseUnavailableError, asyncpg.PostgresError: what was being sent is sent again after a minute.
        """
        if self._server is None:
            await notices.skip_mail(self._db, limit=_SKIPPED_AT_ONCE)
            return
        for _ in range(_BATCHES_MAX):
            found, due = await notices.claim_mail(
                self._db, limit=_AT_ONCE, lease_s=_LEASE_S, tries_max=len(PAUSES_S) + 1
            )
            sending = [self._send(self._server, mail) for mail in due]
            faults = await asyncio.gather(*sending, return_exceptions=True)
            for fault in filter(None, faults):
                raise fault
            if found < _AT_ONCE:
                break

    async def _send(self, server: Outgoing, mail: DueMail) -> None:
        try:
            await server.send(mail)
        except MailRefusedError as error:
            await self._give_up(mail, error)
        except MailUnavailableError as error:
            if mail.tries > len(PAUSES_S):
                await self._give_up(mail, error)
            else:
                _log.info("mail_not_sent", notice=str(mail.id), tries=mail.tries, error=str(error))
                await notices.end_mail(self._db, mail, "due", again_in_s=PAUSES_S[mail.tries - 1])
        else:
            await notices.end_mail(self._db, mail, "sent")

    async def _give_up(self, mail: DueMail, error: Exception) -> None:
        _log.warning("mail_given_up", notice=str(mail.id), tries=mail.tries, error=str(error))
        await notices.end_mail(self._db, mail, "failed")


def _split(url: str) -> tuple[SplitResult, int, bool | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:  # its message may quote the password
        raise ValueError("smtp_url is not a URL") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.fragment:
        raise ValueError("smtp_url is smtp://user:password@host:587 or smtps://user:password@host")
    if (parts.username is None) != (parts.password is None):
        raise ValueError("smtp_url has both a user and a password, or neither")
    wanted = query.pop("starttls", ["required"])
    if query or len(wanted) != 1 or wanted[0] not in _STARTTLS:
        raise ValueError("smtp_url has one option: starttls=required, optional or never")
    if parts.scheme == "smtps":
        if parts.query:
            raise ValueError("smtps:// has TLS from the start; leave starttls out")
        return parts, port or _PORTS["smtps"], False
    if wanted[0] == "optional" and parts.username is not None:
        # Whoever sits in between hides STARTTLS, and has the password.
        raise ValueError(
            "smtp_url with a password needs starttls=required, or starttls=never on a safe network"
        )
    return parts, port or _PORTS["smtp"], _STARTTLS[wanted[0]]


def _sender(text: str) -> Address:
    name, address = parseaddr(text)
    try:
        sender = Address(name, addr_spec=address)
    except (MessageError, ValueError, IndexError):
        raise ValueError("smtp_from is not an e-mail address") from None
    if not sender.username or not sender.domain or not address.isascii() or not text.isprintable():
        raise ValueError("smtp_from is not an e-mail address")
    return sender


def _fault(error: Exception, codes: list[int], *, final: bool) -> Exception:
    what = " ".join([type(error).__name__, *map(str, codes)])
    return MailRefusedError(what) if final else MailUnavailableError(what)
