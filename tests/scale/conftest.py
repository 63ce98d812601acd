"""Two APIs, two workers and a console on machines of their own, for all tests of a file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from tests.accounts.test_mail import SENDER, Mailbox, smtp
from tests.e2e.system import Api, Process, System
from tests.scale.machines import Machines, machines
from tests.support import make_account

PLANS = """
[slow]
requests_per_minute = 60
[narrow]
generations_in_flight = 3
[monthly]
monthly_credits = 7
[unlimited]
[free]
"""


@dataclass
class Running:
    """What runs, and the ways in."""

    machines: Machines
    hosts: list[System]
    one: Api
    two: Api
    workers: list[Process]
    console: str
    mailbox: Mailbox

    async def customer(self, **account: str) -> tuple[UUID, Api, Api]:
        """A new account, and both APIs with its key."""
        account_id, key = await make_account(self.machines.db, **account)
        one, two = (Api(api.base, key, api.client) for api in (self.one, self.two))
        return account_id, one, two


@pytest.fixture(scope="module")
async def empty_machines() -> AsyncIterator[Machines]:
    """The servers that machines share; no process of ours runs."""
    with TemporaryDirectory(prefix="babysea-scale-", ignore_cleanup_errors=True) as folder:
        async with machines(Path(folder)) as made:
            yield made


@pytest.fixture(scope="module")
async def running(empty_machines: Machines) -> AsyncIterator[Running]:
    """Five machines at work."""
    async with AsyncExitStack() as stack:
        mailbox = Mailbox()
        port = await stack.enter_async_context(smtp(mailbox))
        empty_machines.settings["BABYSEA_SMTP_URL"] = f"smtp://127.0.0.1:{port}?starttls=never"
        empty_machines.settings["BABYSEA_SMTP_FROM"] = SENDER
        hosts = [empty_machines.machine() for _ in range(5)]
        for host in hosts:
            (host.data_dir / "plans.toml").write_text(PLANS)
            host.environment["BABYSEA_PLANS_FILE"] = str(host.data_dir / "plans.toml")
        (_, one), (_, two), first, second, (_, console) = await asyncio.gather(
            *(hosts[0].api(), hosts[1].api(), hosts[2].worker(), hosts[3].worker()),
            empty_machines.console(hosts[4]),
        )
        yield Running(empty_machines, hosts, one, two, [first, second], console, mailbox)
        for host in hosts:
            host.close()
