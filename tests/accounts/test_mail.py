"""Mail: what a local SMTP server gets, and what becomes of mail that it does not take."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from tests.certificates import self_signed

from babysea_server.accounts import notices
from babysea_server.accounts import store as accounts
from babysea_server.accounts.mail import PAUSES_S, MailJob, MailServer, mail_server
from babysea_server.db.pool import Database

SENDER = "BabySea <notices@example.org>"
ACCEPTED = "250 OK"


class Mailbox:
    """The handler of a local SMTP server: takes mail, or answers what it was told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[Envelope, bool]] = []
        self.to_recipient = ACCEPTED
        self.to_data = ACCEPTED
        self.users: list[tuple[bytes, bytes]] = []

    async def handle_RCPT(  # noqa: N802  (the name is the server library's)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.to_recipient == ACCEPTED:
            envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  (likewise)
        if self.to_data == ACCEPTED:
            self.taken.append((envelope, session.ssl is not None))
        return self.to_data

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.users.append((data.login, data.password))
        return AuthResult(success=data.password == b"pass:word", handled=False)

    @property
    def mails(self) -> list[EmailMessage]:
        found = []
        for envelope, _ in self.taken:
            assert isinstance(envelope.content, bytes)
            message = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            found.append(message)
        return found


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@asynccontextmanager
async def _listening(
    protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def smtp(
    mailbox: Mailbox, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AbstractAsyncContextManager[int]:
    """A server on loopback; its port."""
    return _listening(lambda: SMTP(mailbox, hostname="localhost", **options), tls)


def plain(port: int, **options: Any) -> MailServer:
    return MailServer(f"smtp://127.0.0.1:{port}?starttls=never", SENDER, **options)


async def noticed(
    db: Database, email: str | None = "ann@example.com", text: str = "The balance is low."
) -> tuple[UUID, UUID]:
    """An account with one notice that is due; both ids."""
    account = await accounts.create(db, name="Ann's", plan="free", email=email)
    return account.id, await notices.notify(db, account.id, "credits.low_balance", text, {})


async def state(db: Database, notice_id: UUID) -> tuple[str, int]:
    row = await db.fetchrow("SELECT mail_state, mail_tries FROM notices WHERE id = $1", notice_id)
    return row["mail_state"], row["mail_tries"]


async def let_time_pass(db: Database) -> None:
    """Every pause and every claim of mail is over."""
    await db.execute("UPDATE notices SET mail_due_at = now()")


# ------------------------------------------------------------------------------- sending


async def test_a_notice_is_sent_once_as_plain_text(db: Database, mailbox: Mailbox) -> None:
    account_id, notice_id = await noticed(db)
    async with smtp(mailbox) as port:
        for _ in range(2):
            await MailJob(db, plain(port)).run()
            await let_time_pass(db)
    ((envelope, _),) = mailbox.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("notices@example.org", ["ann@example.com"])
    (mail,) = mailbox.mails
    assert (mail["From"], mail["To"], mail["Subject"]) == (SENDER, "ann@example.com", "Your balance is low")
    assert mail["Message-ID"] == f"<{notice_id}@example.org>"
    assert (mail.get_content_type(), mail["Auto-Submitted"]) == ("text/plain", "auto-generated")
    assert mail["Date"] is not None
    assert mail.get_content().split() == f"The balance is low. Account: Ann's ({account_id})".split()
    assert await state(db, notice_id) == ("sent", 1)


async def test_workers_at_once_send_each_notice_once(db: Database, mailbox: Mailbox) -> None:
    made = {f"user{n}@example.com" for n in range(12)}
    for address in made:
        await noticed(db, address)
    async with smtp(mailbox) as port:
        await asyncio.gather(*(MailJob(db, plain(port)).run() for _ in range(3)))
    assert sorted(str(mail["To"]) for mail in mailbox.mails) == sorted(made)


async def test_nobody_sends_what_a_worker_claimed_until_its_time_is_over(
    db: Database, mailbox: Mailbox
) -> None:
    _, notice_id = await noticed(db)
    _, (dead,) = await notices.claim_mail(db, limit=5, lease_s=60, tries_max=6)
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
        assert mailbox.taken == []
        await let_time_pass(db)
        await MailJob(db, plain(port)).run()
    assert len(mailbox.taken) == 1
    assert not await notices.end_mail(db, dead, "due")
    assert await state(db, notice_id) == ("sent", 2)


async def test_an_account_without_an_address_gets_no_mail(db: Database, mailbox: Mailbox) -> None:
    _, notice_id = await noticed(db, None)
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
    assert (await state(db, notice_id), mailbox.taken) == (("none", 0), [])


async def test_without_a_mail_server_nothing_waits_for_one(db: Database, mailbox: Mailbox) -> None:
    _, notice_id = await noticed(db)
    await MailJob(db, mail_server(None, None)).run()
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
    assert (await state(db, notice_id), mailbox.taken) == (("none", 0), [])


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com, eve@example.com",
        "ann@example.com\r\nBcc: eve@example.com",
        "@example.com",
        "é@example.com",
        "<a@b>",
    ],
)
async def test_an_address_that_is_not_one_gets_no_mail(db: Database, mailbox: Mailbox, address: str) -> None:
    _, notice_id = await noticed(db, address)
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
    assert (await state(db, notice_id), mailbox.taken) == (("failed", 1), [])


async def test_text_never_becomes_a_header_or_ends_the_mail(db: Database, mailbox: Mailbox) -> None:
    account = await accounts.create(
        db, name="X\r\nBcc: eve@example.com", plan="free", email="ann@example.com"
    )
    await notices.notify(db, account.id, "odd\r\nBcc: eve@example.com", "One.\r\n.\r\nQUIT\r\nüñï", {})
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
    ((envelope, _),) = mailbox.taken
    (mail,) = mailbox.mails
    assert envelope.rcpt_tos == ["ann@example.com"]
    assert (mail["Bcc"], mail["Subject"]) == (None, "Notice about your account")
    assert mail.get_content().splitlines()[:4] == ["One.", ".", "QUIT", "üñï"]


# ------------------------------------------------------------------------------- trying again, giving up


async def test_a_refused_recipient_is_not_tried_again(db: Database, mailbox: Mailbox) -> None:
    _, notice_id = await noticed(db)
    mailbox.to_recipient = "550 no such user"
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
    assert await state(db, notice_id) == ("failed", 1)


async def test_refused_content_is_not_tried_again(db: Database, mailbox: Mailbox) -> None:
    _, notice_id = await noticed(db)
    mailbox.to_data = "554 spam"
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
    assert await state(db, notice_id) == ("failed", 1)


async def test_a_busy_server_is_tried_again_after_growing_pauses_and_then_given_up(
    db: Database, mailbox: Mailbox
) -> None:
    _, notice_id = await noticed(db)
    mailbox.to_recipient = "451 try later"
    pauses = []
    async with smtp(mailbox) as port:
        for _ in PAUSES_S:
            await MailJob(db, plain(port)).run()
            await MailJob(db, plain(port)).run()
            pauses.append(
                await db.fetchval("SELECT extract(epoch FROM mail_due_at - now())::float8 FROM notices")
            )
            await let_time_pass(db)
        assert await state(db, notice_id) == ("due", len(PAUSES_S))
        await MailJob(db, plain(port)).run()
    assert pauses == sorted(pauses)
    assert all(pause <= planned for pause, planned in zip(pauses, PAUSES_S, strict=True))
    assert await state(db, notice_id) == ("failed", len(PAUSES_S) + 1)


async def test_mail_that_ends_its_worker_each_time_is_given_up(db: Database, mailbox: Mailbox) -> None:
    _, notice_id = await noticed(db)
    for _ in range(len(PAUSES_S) + 1):
        await notices.claim_mail(db, limit=5, lease_s=0, tries_max=len(PAUSES_S) + 1)
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
    assert (await state(db, notice_id), mailbox.taken) == (("failed", len(PAUSES_S) + 1), [])


async def test_a_busy_server_that_recovers_gets_the_mail(db: Database, mailbox: Mailbox) -> None:
    _, notice_id = await noticed(db)
    mailbox.to_data = "451 try later"
    async with smtp(mailbox) as port:
        await MailJob(db, plain(port)).run()
        mailbox.to_data = ACCEPTED
        await let_time_pass(db)
        await MailJob(db, plain(port)).run()
    assert (await state(db, notice_id), len(mailbox.taken)) == (("sent", 2), 1)


async def test_a_server_that_is_away_is_tried_again(db: Database, mailbox: Mailbox) -> None:
    _, notice_id = await noticed(db)
    async with smtp(mailbox) as port:
        pass
    await MailJob(db, plain(port)).run()
    assert await state(db, notice_id) == ("due", 1)


async def test_a_server_that_never_answers_is_left_at_the_deadline(db: Database) -> None:
    _, notice_id = await noticed(db)
    async with _listening(asyncio.Protocol) as port:
        await MailJob(db, plain(port, deadline_s=0.05)).run()
    assert await state(db, notice_id) == ("due", 1)


# ------------------------------------------------------------------------------- TLS and credentials


async def test_credentials_go_over_starttls_to_a_trusted_server(
    db: Database, mailbox: Mailbox, tmp_path: Path
) -> None:
    _, notice_id = await noticed(db)
    server_tls, client_tls = self_signed(tmp_path)
    options: dict[str, Any] = {"tls_context": server_tls, "authenticator": mailbox.authenticate}
    async with smtp(mailbox, auth_required=True, **options) as port:
        url = f"smtp://us%40er:pass%3Aword@localhost:{port}"
        await MailJob(db, MailServer(url, SENDER, tls=client_tls)).run()
    assert await state(db, notice_id) == ("sent", 1)
    assert mailbox.users == [(b"us@er", b"pass:word")]
    assert [secure for _, secure in mailbox.taken] == [True]


async def test_smtps_has_tls_from_the_start(db: Database, mailbox: Mailbox, tmp_path: Path) -> None:
    _, notice_id = await noticed(db)
    server_tls, client_tls = self_signed(tmp_path)
    async with smtp(mailbox, tls=server_tls) as port:
        await MailJob(db, MailServer(f"smtps://localhost:{port}", SENDER, tls=client_tls)).run()
    assert await state(db, notice_id) == ("sent", 1)


async def test_a_server_that_nobody_vouches_for_gets_nothing(
    db: Database, mailbox: Mailbox, tmp_path: Path
) -> None:
    _, notice_id = await noticed(db)
    server_tls, _ = self_signed(tmp_path)
    async with smtp(mailbox, tls_context=server_tls, authenticator=mailbox.authenticate) as port:
        await MailJob(db, MailServer(f"smtp://user:pass@localhost:{port}", SENDER)).run()
    assert (await state(db, notice_id), mailbox.taken, mailbox.users) == (("due", 1), [], [])


async def test_a_server_without_starttls_gets_nothing_unless_that_was_said(
    db: Database, mailbox: Mailbox
) -> None:
    _, notice_id = await noticed(db)
    async with smtp(mailbox) as port:
        await MailJob(db, MailServer(f"smtp://127.0.0.1:{port}", SENDER)).run()
        assert (await state(db, notice_id), mailbox.taken) == (("due", 1), [])
        await let_time_pass(db)
        await MailJob(db, MailServer(f"smtp://127.0.0.1:{port}?starttls=optional", SENDER)).run()
    assert (await state(db, notice_id), len(mailbox.taken)) == (("sent", 2), 1)


async def test_refused_credentials_are_tried_again_and_never_printed(
    db: Database, mailbox: Mailbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, notice_id = await noticed(db)
    server_tls, client_tls = self_signed(tmp_path)
    async with smtp(mailbox, tls_context=server_tls, authenticator=mailbox.authenticate) as port:
        server = MailServer(f"smtp://someuser:wrongpassword@localhost:{port}", SENDER, tls=client_tls)
        for _ in range(len(PAUSES_S) + 1):
            await MailJob(db, server).run()
            await let_time_pass(db)
    assert await state(db, notice_id) == ("failed", len(PAUSES_S) + 1)
    assert (b"someuser", b"wrongpassword") in mailbox.users
    printed = "".join(capfd.readouterr()) + repr(server)
    assert "mail_given_up" in printed
    assert "wrongpassword" not in printed
    assert "someuser" not in printed


# ------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://user:hush@host",
        "smtp://",
        "smtp://user:hush@host:port",
        "smtp://user:hush@host:99999",
        "smtp://user@host",
        "smtp://host/path",
        "smtp://host#part",
        "smtp://[hush",
        "smtp://host?starttls=maybe",
        "smtp://host?starttls",
        "smtp://host?other=1",
        "smtp://user:hush@host?starttls=optional",
        "smtps://host?starttls=never",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="smtp") as caught:
        MailServer(url, SENDER)
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "sender", ["", "BabySea", "a@b@c", "a b@example.org", "a@example.org\nBcc: b@example.org"]
)
def test_a_sender_that_is_no_address_is_refused(sender: str) -> None:
    with pytest.raises(ValueError, match="smtp_from"):
        MailServer("smtp://host", sender)


def test_a_mail_server_needs_a_sender() -> None:
    assert mail_server(None, SENDER) is None
    assert mail_server("smtp://host", SENDER) is not None
    with pytest.raises(ValueError, match="smtp_from"):
        mail_server("smtp://host", None)
