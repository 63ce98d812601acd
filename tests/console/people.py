"""People of the console's tests: users with a password and a personal account, and a mail server that keeps mail."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from uuid import uuid4

from aiosmtpd.smtp import SMTP, Envelope, Session
from tests.console.support import ConsoleClient, Person, console_of, open_client
from tests.support import Deployment, eventually

from babysea_server.accounts import users
from babysea_server.accounts.sessions import Visitor
from babysea_server.accounts.users import SignedUp

PASSWORD = "correct horse battery"
#: What every field of text gets once: it must come out as text.
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


async def signed_up(
    deployment: Deployment, *, password: str | None = PASSWORD, name: str = "Grace Hopper", email: str = ""
) -> SignedUp:
    """A user with a personal account."""
    region = console_of(deployment).regions["us"]
    hash = None if password is None else await region.passwords.hash(password)
    async with deployment.db.transaction() as connection:
        return await users.sign_up(
            connection,
            email=email or f"{uuid4().hex[:10]}@example.com",
            name=name,
            password=hash,
            plan=region.plans["free"],
        )


@asynccontextmanager
async def signed_in(deployment: Deployment, made: SignedUp) -> AsyncIterator[ConsoleClient]:
    """A browser in which the user is signed in, at the personal account."""
    sessions = console_of(deployment).regions["us"].sessions
    token = await sessions.begin(
        made.user.id, Visitor("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "0" * 12)
    )
    slug = await deployment.db.fetchval("SELECT slug FROM accounts WHERE id = $1", made.account.id)
    person = Person(made.user, made.account.id, slug, "primary-owner", token)
    async with open_client(deployment, person) as client:
        yield client


def next_token(client: ConsoleClient) -> str:
    """The token of the session that the browser has now; its forms are the client's from here on."""
    token: str = client.http.cookies["babysea-us"]
    person = client.person
    client._person = Person(person.user, person.account_id, person.slug, person.role, token)
    return token


@dataclass
class Mailbox:
    """What has come, by address."""

    mails: list[tuple[str, str, str]] = field(default_factory=list)
    """Recipient, subject, text."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  (the library's name)
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        text = message.get_content()
        self.mails.append((envelope.rcpt_tos[0], str(message["Subject"]), text))
        return "250 OK"

    async def text_to(self, address: str) -> str:
        """The first mail to an address, once it has come."""

        async def found() -> str | None:
            return next((text for to, _, text in self.mails if to == address), None)

        return await eventually(found)

    async def link_to(self, address: str) -> str:
        """The link in the first mail to an address, without the origin."""
        link = re.search(r"http://localhost(/console/\S+)", await self.text_to(address))
        assert link is not None
        return link[1]


@asynccontextmanager
async def mail_server() -> AsyncIterator[tuple[Mailbox, dict[str, str]]]:
    """A mailbox behind a port of this machine, and the settings that lead to it."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, hostname="localhost", loop=loop), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            mailbox,
            {
                "smtp_url": f"smtp://127.0.0.1:{port}?starttls=never",
                "smtp_from": "BabySea <console@example.org>",
                "console_url": "http://localhost",
            },
        )
    finally:
        server.close()
