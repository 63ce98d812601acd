"""`webhooks listen`: an account's events on this terminal, and at a program on this machine."""

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Annotated, Any
from uuid import UUID

import msgspec
import typer

from babysea_server.cli.common import (
    AccountOption,
    AsJson,
    Config,
    DataDir,
    RegionOption,
    account_id_of,
    cell,
    fail,
    in_region,
    read_settings,
    refusing_input,
)
from babysea_server.db.pool import Database
from babysea_server.kit.clock import SystemClock
from babysea_server.master_key import load_master_key
from babysea_server.outputs.links import LinkSigner
from babysea_server.settings import SettingsError
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.endpoints import SUBSCRIBABLE, check_events
from babysea_server.webhooks.listening import listener
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.signing import sign
from babysea_server.webhooks.urls import check_endpoint_url

_TIMEOUT_S = 10


class _Wanted(msgspec.Struct, frozen=True):
    """What is listened to, for how many events, where they go, how they are printed."""

    account_id: UUID
    events: Sequence[str]
    forward: str | None
    count: int | None
    as_json: bool


def listen(
    account: AccountOption,
    events: Annotated[
        str | None, typer.Option("--events", help="Events, joined by commas; by default all.")
    ] = None,
    forward: Annotated[
        str | None, typer.Option(help="Send them on, signed, e.g. to http://localhost:3000/hook.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show an account's events as they happen, without an endpoint; Ctrl-C ends it."""
    with refusing_input():
        chosen = SUBSCRIBABLE if events is None else check_events(part.strip() for part in events.split(","))
        if forward is not None:
            check_endpoint_url(forward, allow_private=True)
    wanted = _Wanted(account_id_of(account), chosen, forward, count, as_json)
    settings = read_settings(data_dir, config, log_level="warning")
    try:
        master_key = load_master_key(settings)
    except SettingsError as error:
        fail(str(error))

    async def work(db: Database, region: str) -> None:
        # Imported here: with all parts every other command would take twice as long.
        from babysea_server.app.shared import public_origin

        signer = LinkSigner(master_key, SystemClock(), settings.file_link_lifetime_s)
        bodies = Bodies(signer, public_origin(settings, region), region)
        with _ended_by_signal():
            await _show_events(db, SecretBox(master_key), bodies, wanted)

    in_region(data_dir, config, region, work)


async def _show_events(db: Database, box: SecretBox, bodies: Bodies, wanted: _Wanted) -> None:
    # Imported here: with it every other command would take longer.
    import aiohttp

    clock = SystemClock()
    async with (
        listener(db, box, clock, wanted.account_id, wanted.events) as heard,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
        aclosing(heard.events()) as deliveries,
    ):
        _write_start(heard.secret, wanted)
        number = 0
        async for delivery in deliveries:
            body = bodies.render(delivery)
            result = None
            if wanted.forward is not None:
                headers = sign(heard.secret, delivery.id, body, clock.now())
                result = await _forwarded(session, wanted.forward, body, headers)
            _write_event(body, result, wanted)
            number += 1
            if number == wanted.count:
                return


async def _forwarded(session: Any, url: str, body: bytes, headers: dict[str, str]) -> str:
    """What became of it, for people: a status, or what kept it from arriving."""
    import aiohttp

    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return str(response.status)
    except TimeoutError:
        return f"no answer within {_TIMEOUT_S} s"
    except aiohttp.ClientError as error:
        return str(error) or type(error).__name__


def _write_start(secret: str, wanted: _Wanted) -> None:
    if wanted.as_json:
        _write({"webhook_secret": secret, "account_id": str(wanted.account_id), "events": wanted.events})
        return
    goal = "" if wanted.forward is None else f", sent on to {wanted.forward}"
    sys.stdout.write(f"listening to {', '.join(wanted.events)}{goal}\nsigned with {secret}\nCtrl-C ends it\n")
    sys.stdout.flush()


def _write_event(body: bytes, result: str | None, wanted: _Wanted) -> None:
    if wanted.as_json:
        _write({"body": msgspec.Raw(body), "forwarded": result})
        return
    told = msgspec.json.decode(body)
    data = told["webhook_data"]
    shown = [told["webhook_timestamp"], told["webhook_event"], data.get("generation_id"), result]
    sys.stdout.write("  ".join(cell(part) for part in shown if part) + "\n")
    sys.stdout.flush()


def _write(record: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
    sys.stdout.flush()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is done here and now, and are no fault."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    except asyncio.CancelledError:
        task.uncancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
