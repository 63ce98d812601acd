"""Commands on webhook endpoints, their deliveries, their secrets; and listening on a terminal."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.cli.conftest import Commands, Installation

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.master_key import load_master_key
from babysea_server.settings import load_settings
from babysea_server.webhooks.endpoints import SUBSCRIBABLE
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.signing import sign

URL = "https://example.com/hook"


@pytest.fixture
def account(installation: Installation) -> str:
    return installation.account()


def create(installation: Installation, account: str, *options: str) -> dict[str, Any]:
    made: dict[str, Any] = installation.json(
        "webhooks",
        "create",
        "--account",
        account,
        *(options if "--url" in options else ("--url", URL, *options)),
    )
    return made


async def happen(postgres: EmbeddedPostgres, account: str, *, region: str = "us", ended: str = "") -> None:
    """An event of the account; its deliveries end as is said."""
    connection = await asyncpg.connect(postgres.dsn(f"babysea_{region}"))
    try:
        await connection.fetchval(
            "SELECT enqueue_account_event_v1($1, 'credits.low_balance', $2)",
            UUID(account),
            json.dumps({"account_id": account, "current_balance": 0.25}),
        )
        if ended:
            await connection.execute(
                """UPDATE webhook_deliveries SET state = $2::text::webhook_delivery_state, ended_at = now()
                   WHERE account_id = $1 AND state = 'pending'""",
                UUID(account),
                ended,
            )
    finally:
        await connection.close()


# ------------------------------------------------------------------------------------------ endpoints


def test_an_endpoint_lives(installation: Installation, account: str) -> None:
    made = create(installation, account, "--events", "generation.failed, generation.completed")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{32}", made["webhook_secret"])
    assert (made["state"], made["url"], made["region"]) == ("enabled", URL, "us")
    assert made["events"] == ["generation.completed", "generation.failed"]
    endpoint = made["endpoint_id"]

    for listing in (("list", "--account", account), ("list", "--limit", "10000"), ("show", endpoint)):
        shown = installation("webhooks", *listing, "--json")
        assert endpoint in shown.out
        assert made["webhook_secret"] not in shown.out
    assert installation.json("webhooks", "show", endpoint)["deliveries_waiting"] == 0

    assert installation.json("webhooks", "disable", endpoint)["state"] == "disabled"
    assert installation.json("webhooks", "enable", endpoint)["state"] == "enabled"
    changed = installation.json(
        "webhooks", "change", endpoint, "--description", "orders", "--url", URL + "/2"
    )
    assert (changed["description"], changed["url"], changed["events"]) == (
        "orders",
        URL + "/2",
        made["events"],
    )
    rotated = installation.json("webhooks", "rotate-secret", endpoint)
    assert rotated["webhook_secret"] != made["webhook_secret"]
    assert rotated["secret_rotated_at"] is not None

    deleted = installation.json("webhooks", "delete", endpoint)
    assert (deleted["deleted"], deleted["endpoint_id"]) == (True, endpoint)
    gone = installation("webhooks", "show", endpoint)
    assert (gone.code, gone.err) == (1, f"error: no webhook endpoint {endpoint} in this region\n")


def test_by_default_an_endpoint_hears_everything(installation: Installation, account: str) -> None:
    assert create(installation, account)["events"] == list(SUBSCRIBABLE)


def test_an_account_has_twenty_endpoints_and_no_more(installation: Installation, account: str) -> None:
    for _ in range(20):
        create(installation, account)
    refused = installation("webhooks", "create", "--account", account, "--url", URL)
    assert (refused.code, refused.err) == (1, "error: an account has at most 20 webhook endpoints\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("create", "--account", "ACCOUNT", "--url", "http://example.com"), "starts with https://"),
        (("create", "--account", "ACCOUNT", "--url", "https://localhost/"), "not a public name"),
        (("create", "--account", "ACCOUNT", "--url", URL, "--events", "webhook.test"), "no event 'webhook.test'"),
        (("create", "--account", "ACCOUNT", "--url", URL, "--events", ","), "at least one event"),
        (("create", "--account", "ACCOUNT", "--url", URL, "--description", "x" * 201), "at most 200"),
        (("create", "--account", "me", "--url", URL), "'me' is not an account id"),
        (("show", "it"), "'it' is not the id of an endpoint"),
        (("replay", "it"), "'it' is not the id of a delivery"),
        (("deliveries", "ACCOUNT", "--state", "lost"), "not 'lost'"),
        (("replay-failed", "ACCOUNT", "--since", "2027-01-31T00:00:00"), "needs an offset"),
        (("listen", "--account", "ACCOUNT", "--forward", "localhost:3000"), "starts with"),
        (("listen", "--account", "ACCOUNT", "--events", "all"), "no event 'all'"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(installation: Installation, arguments: tuple[str, ...], reason: str) -> None:
    account = "0198f0e0-0000-7000-8000-000000000000"
    refused = installation("webhooks", *(account if word == "ACCOUNT" else word for word in arguments))
    assert (refused.code, refused.out) == (2, "")
    assert reason in refused.err
    assert refused.err.count("\n") == 1


def test_development_takes_a_private_address(installation: Installation, account: str) -> None:
    made = installation(
        "webhooks", "create", "--account", account, "--url", "http://localhost:3000/hook", "--json",
        environment={"BABYSEA_WEBHOOKS_ALLOW_PRIVATE": "true"},
    )  # fmt: skip
    assert made.json["url"] == "http://localhost:3000/hook"


# ------------------------------------------------------------------------------------------ deliveries


async def test_deliveries_are_listed_and_sent_again(
    installation: Installation, postgres: EmbeddedPostgres, account: str
) -> None:
    endpoint = create(installation, account)["endpoint_id"]
    test = installation.json("webhooks", "test", endpoint)
    assert (test["event"], test["state"], test["attempts"]) == ("webhook.test", "pending", [])
    await happen(postgres, account, ended="failed")
    [failed, _] = installation.json("webhooks", "deliveries", endpoint, "--state", "failed")
    assert failed["data"] == {"account_id": account, "current_balance": 0.25}
    assert installation("webhooks", "deliveries", endpoint, "--limit", "1").out.count("\n") == 2
    older = installation.json("webhooks", "deliveries", endpoint, "--before", failed["delivery_id"])
    assert [each["delivery_id"] for each in older] == [test["delivery_id"]]

    again = installation.json("webhooks", "replay", failed["delivery_id"])
    assert (again["replay_of"], again["state"]) == (failed["delivery_id"], "pending")
    refused = installation("webhooks", "replay", again["delivery_id"])
    assert refused.code == 1
    assert refused.err.endswith("is pending\n")
    since = ("--since", "2026-01-01T00:00:00Z")
    sent = installation.json("webhooks", "replay-failed", endpoint, *since)
    assert sent == {"sent_again": 1, "more": False}


async def test_what_waited_is_sent_when_it_is_asked_for(
    installation: Installation, postgres: EmbeddedPostgres, account: str
) -> None:
    endpoint = create(installation, account)["endpoint_id"]
    installation.json("webhooks", "disable", endpoint)
    await happen(postgres, account)
    refused = installation("webhooks", "deliver-queued", endpoint)
    assert (refused.code, refused.err) == (1, f"error: endpoint {endpoint} is disabled: enable it first\n")
    assert installation.json("webhooks", "enable", endpoint)["deliveries_waiting"] == 1
    assert installation.json("webhooks", "deliver-queued", endpoint) == {"sent_again": 1, "more": False}


# ------------------------------------------------------------------------------------------ listening


class Receiver(HTTPServer):
    """Takes what is sent on, and keeps it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiving)
        self.received: list[tuple[dict[str, str], bytes]] = []


class _Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((dict(self.headers), body))
        self.send_response(202)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Listening:
    """A running `webhooks listen --json`."""

    def __init__(self, data_dir: Path, account: str, *options: str) -> None:
        command = [sys.executable, "-m", "babysea_server.cli", "webhooks", "listen", "--json"]
        self.process = subprocess.Popen(
            [*command, "--account", account, "--data-dir", str(data_dir), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        )

    def line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read())
        return json.loads(line)

    def end(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert (out, err) == ("", "")
        return self.process.returncode


async def rows(postgres: EmbeddedPostgres, account: str) -> int:
    connection = await asyncpg.connect(postgres.dsn("babysea_us"))
    try:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM webhook_endpoints WHERE account_id = $1", UUID(account)
        )
        return count
    finally:
        await connection.close()


async def test_listening_shows_events_and_sends_them_on_signed(
    installation: Installation, postgres: EmbeddedPostgres, account: str, receiver: Receiver
) -> None:
    goal = f"http://127.0.0.1:{receiver.server_port}/hook"
    listening = Listening(installation.data_dir, account, "--forward", goal, "--count", "2")
    start = listening.line()
    assert (start["account_id"], start["events"]) == (account, list(SUBSCRIBABLE))
    await happen(postgres, account)
    await happen(postgres, account)
    shown = [listening.line(), listening.line()]
    assert listening.end() == 0
    assert [each["forwarded"] for each in shown] == ["202", "202"]
    assert [each["body"]["webhook_event"] for each in shown] == ["credits.low_balance"] * 2
    for (headers, body), each in zip(receiver.received, shown, strict=True):
        assert json.loads(body) == each["body"]
        moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = sign(start["webhook_secret"], UUID(each["body"]["webhook_delivery_id"]), body, moment)
        assert {name: headers[name] for name in expected} == expected
    assert await rows(postgres, account) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_listening_without_a_fault_and_without_a_trace(
    installation: Installation, postgres: EmbeddedPostgres, account: str, number: signal.Signals
) -> None:
    listening = Listening(installation.data_dir, account, "--events", "credits.low_balance")
    listening.line()
    assert await rows(postgres, account) == 1
    assert installation.json("webhooks", "list", "--account", account) == []
    await happen(postgres, account)
    assert listening.line()["forwarded"] is None
    assert listening.end(number) == 0
    assert await rows(postgres, account) == 0


async def test_what_cannot_be_sent_on_is_said(
    installation: Installation, postgres: EmbeddedPostgres, account: str
) -> None:
    listening = Listening(
        installation.data_dir, account, "--forward", "http://127.0.0.1:1/hook", "--count", "1"
    )
    listening.line()
    await happen(postgres, account)
    assert "127.0.0.1:1" in listening.line()["forwarded"]
    assert listening.end() == 0


# ------------------------------------------------------------------------------------------ the master key


async def opened(dsn: str, text: str) -> dict[str, str]:
    """The secrets of a region, opened with the master key of this text."""
    box = SecretBox(load_master_key(load_settings({}, overrides={"master_key": text})))
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT id, secret FROM webhook_endpoints")
        return {str(row["id"]): box.open(row["secret"]) for row in rows}
    finally:
        await connection.close()


def modes(folder: Path) -> dict[str, int]:
    """Who may read each file of a folder; none where there is no folder."""
    return {path.name: path.stat().st_mode & 0o777 for path in folder.glob("*")}


@pytest.fixture
def external(postgres: EmbeddedPostgres, dsn: str, tmp_path: Path) -> dict[str, str]:
    """An installation of one region with a database and a data folder of its own."""
    return {"DATABASE_URL_US": dsn, "BABYSEA_REGIONS": "us", "BABYSEA_DATA_DIR": str(tmp_path / "data")}


def endpoint_of(commands: Commands, environment: dict[str, str]) -> dict[str, str]:
    """A new endpoint and its secret."""
    made = commands("accounts", "create", "--name", "A", "--json", environment=environment).json
    made = commands(
        "webhooks", "create", "--account", made["account_id"], "--url", URL, "--json", environment=environment
    ).json
    return {made["endpoint_id"]: made["webhook_secret"]}


async def test_the_master_key_in_the_data_folder_is_replaced_and_the_old_one_kept(
    commands: Commands, external: dict[str, str], dsn: str
) -> None:
    secrets = endpoint_of(commands, external)
    folder = Path(external["BABYSEA_DATA_DIR"])
    before = (folder / "master.key").read_text()
    for count in (1, 2):
        rotated = commands("secrets", "rotate", "--json", environment=external)
        assert rotated.json["secrets_resealed"] == {"us": count}
        assert "restart every API and worker process" in rotated.err
        assert (folder / "master.key.old").read_text() == before
        before = (folder / "master.key").read_text()
        assert modes(folder) == {"master.key": 0o600, "master.key.old": 0o600}
        assert await opened(dsn, before) == secrets
        secrets |= endpoint_of(commands, external)


async def test_a_rotation_that_was_interrupted_goes_on_with_the_same_key(
    commands: Commands, external: dict[str, str], dsn: str
) -> None:
    secrets = endpoint_of(commands, external)
    folder = Path(external["BABYSEA_DATA_DIR"])
    (folder / "master.key.new").write_text("n" * 40)
    refused = commands("secrets", "rotate", environment={**external, "NEW_MASTER_KEY": "m" * 40})
    assert (refused.code, refused.out) == (1, "")
    assert "a rotation to another key was interrupted" in refused.err
    assert commands("secrets", "rotate", "--json", environment=external).json["secrets_resealed"] == {"us": 1}
    assert (folder / "master.key").read_text() == "n" * 40
    assert await opened(dsn, "n" * 40) == secrets


async def test_a_master_key_that_is_a_setting_is_changed_by_its_owner(
    commands: Commands, external: dict[str, str], dsn: str
) -> None:
    environment = {**external, "MASTER_KEY": "o" * 40}
    secrets = endpoint_of(commands, environment)
    missing = commands("secrets", "rotate", environment=environment)
    assert missing.err == "error: the master key is a setting: give the new one in NEW_MASTER_KEY\n"
    short = commands("secrets", "rotate", environment={**environment, "NEW_MASTER_KEY": "short"})
    assert short.err == "error: NEW_MASTER_KEY needs at least 32 characters\n"
    assert (missing.code, short.code) == (1, 1)
    for count in (1, 0):
        rotated = commands(
            "secrets", "rotate", "--json", environment={**environment, "NEW_MASTER_KEY": "n" * 40}
        )
        assert rotated.json == {
            "secrets_resealed": {"us": count},
            "master_key": "set MASTER_KEY to what NEW_MASTER_KEY is",
        }
        assert "n" * 40 not in rotated.out + rotated.err
    assert await opened(dsn, "n" * 40) == secrets
    assert modes(Path(external["BABYSEA_DATA_DIR"])) == {}


def test_only_one_rotation_is_under_way(commands: Commands, external: dict[str, str]) -> None:
    endpoint_of(commands, external)
    folder = Path(external["BABYSEA_DATA_DIR"])
    with (folder / "master.key").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = commands("secrets", "rotate", environment=external)
    assert (refused.code, refused.err) == (1, "error: another rotation of the master key is under way\n")
    assert list(modes(folder)) == ["master.key"]


async def test_secrets_under_no_known_key_leave_the_master_key_as_it_is(
    commands: Commands, external: dict[str, str]
) -> None:
    endpoint_of(commands, {**external, "MASTER_KEY": "x" * 40})
    refused = commands("secrets", "rotate", environment=external)
    assert (refused.code, refused.out) == (1, "")
    assert "rotate or delete them, then go on" in refused.err
    assert "master.key.old" not in modes(Path(external["BABYSEA_DATA_DIR"]))
