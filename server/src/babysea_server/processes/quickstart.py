"""What a newcomer gets at the first start: an account with credits, a key, a first generation, lines to paste."""

import asyncio
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import structlog

from babysea_server.accounts import store as accounts
from babysea_server.accounts import user_store
from babysea_server.accounts.members import members_of
from babysea_server.accounts.users import adopt, new_sign_in_link
from babysea_server.app.registries import live_providers
from babysea_server.app.shared import catalog_of
from babysea_server.catalog.pricing import quote
from babysea_server.catalog.types import Model
from babysea_server.db.pool import Database
from babysea_server.keys import store as keys
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import hash_of, issue
from babysea_server.kit.money import MICROS_PER_CREDIT
from babysea_server.ledger import store as ledger
from babysea_server.processes.faults import StartError
from babysea_server.settings import Settings

_log = structlog.get_logger(__name__)

_FIRST_NAME = "First account"
_FIRST_CREDITS = 100
_FIRST_PLAN = "unlimited"
_FIRST_OWNER_NAME = "Owner"
_FIRST_OWNER = "owner@localhost.localdomain"
_FIRST_PROMPT = "A lighthouse on a cliff at dawn, gulls in the wind"
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_READY_TIMEOUT_S = 60.0
_REQUEST_TIMEOUT_S = 15.0
_GENERATION_TIMEOUT_S = 60.0


class QuickstartFile(msgspec.Struct, kw_only=True):
    """`<data_dir>/quickstart.json`, mode 0600."""

    api_base: str
    region: str
    account_id: str
    api_key: str
    console_url: str


class Showcase(msgspec.Struct, frozen=True):
    """What a newcomer is shown: the models to try, and whom their jobs go to."""

    first: str
    """The model of the first generation, which must cost nobody anything."""
    image: str
    video: str
    note: str


_SANDBOXED = Showcase(
    first="bfl/flux-schnell",
    image="bfl/flux-schnell",
    video="wan/2.6-t2v",
    note="Everything is drawn by the built-in sandbox until a provider is configured.",
)


def showcase(settings: Settings) -> Showcase:
    """What to show with the providers that are configured.

    Raises:
        CatalogError, SettingsError
    """
    live = live_providers(settings)
    if not live:
        return _SANDBOXED
    runs = [model for model in catalog_of(settings).models.values() if live.keys() & set(model.provider_ids)]
    note = (
        f"Live providers: {', '.join(live)}. Their {len(runs)} models run for real and cost you money there; "
        "sandbox/image and sandbox/video cost nothing."
    )
    return Showcase(
        first="sandbox/image",
        image=_cheapest(runs, "image") or "sandbox/image",
        video=_cheapest(runs, "video") or "sandbox/video",
        note=note,
    )


def _cheapest(models: Sequence[Model], media: str) -> str | None:
    """The cheapest model that needs no more than a prompt, and a clip's length of five seconds."""
    body = {"generation_prompt": "", "generation_duration": 5}
    fitting = [
        (quote(model, body).cost_micro, model.identifier)
        for model in models
        if model.media == media
        and all(name in body for name, spec in model.fields.items() if spec.required)
        and (model.schema.durations is None or 5 in model.schema.durations)
    ]
    return min(fitting)[1] if fitting else None


class FirstGenerationError(Exception):
    """The first generation did not succeed; the message says how it ended."""


class Quickstart:
    """The first account of the default region and its key, kept over restarts.

    Args:
        dsn: the default region's database.
        port: the one really listened on.
        shown: the models to try.
    """

    def __init__(self, settings: Settings, dsn: str, port: int, shown: Showcase) -> None:
        self._shown = shown
        self.region = settings.default_region
        # Only the names of the domain are answered, whatever address is listened on ...
        local = settings.domain == "localhost"
        self._host = _authority("localhost" if local else f"api.{self.region}.{settings.domain}", port)
        self.api_base = f"http://{self._host}"
        # ... and a name may resolve to an address that nobody listens on.
        connect = _LOOPBACK_OF.get(settings.host, settings.host)
        self._connect_base = f"http://{_authority(connect, port)}"
        self._path = settings.data_path / "quickstart.json"
        self._dsn = dsn
        self._key_is_new = False
        self.file: QuickstartFile | None = None
        self._console = settings.console_enabled
        self._console_origin = (settings.console_url or self.api_base).rstrip("/")
        self.sign_in_link: str | None = None
        """Signs the first owner in, once; None as soon as some owner has a password, and without a console."""
        self.first: str | None = None
        """How the first generation ended, in lines for people; None when there was none to make."""

    async def prepare(self) -> None:
        """Find or make the first account and its key, and write the file.

        Raises:
            DatabaseUnavailableError, OSError
        """
        db = Database(self._dsn, name="babysea-up", size=2)
        await db.open()
        try:
            known = await self._known_key(db)
            self._key_is_new = known is None
            account_id, secret = known or await self._new_key(db)
            if self._console:
                self.sign_in_link = await self._first_owner_link(db, UUID(account_id))
        finally:
            await db.close()
        self.file = QuickstartFile(
            api_base=self.api_base,
            region=self.region,
            account_id=account_id,
            api_key=secret,
            console_url=f"{self._console_origin}/console",
        )
        await asyncio.to_thread(
            _write_private, self._path, msgspec.json.format(msgspec.json.encode(self.file))
        )

    async def _known_key(self, db: Database) -> tuple[str, str] | None:
        """Account and key of an earlier start, if it still is a key."""
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
            secret = msgspec.json.decode(text, type=QuickstartFile).api_key
        except (OSError, msgspec.DecodeError):
            return None
        key = await keys.by_hash(db, hash_of(secret))
        if key is None or key["state"] != "active" or key["plan"] is None:
            return None
        return str(key["account_id"]), secret

    async def _new_key(self, db: Database) -> tuple[str, str]:
        """A new key of the oldest account; without any account, one with credits is made."""
        account = await accounts.first(db)
        if account is None:
            account = await accounts.create(db, name=_FIRST_NAME, plan=_FIRST_PLAN)
        # A first start that was killed between these steps is completed by the next.
        untouched = account.name == _FIRST_NAME and account.credit_balance == 0
        if untouched and not await keys.of_account(db, account.id):
            await ledger.add(db, account.id, _FIRST_CREDITS * MICROS_PER_CREDIT, "Welcome credits")
        issued = await issue(db, account_id=account.id, name="Quickstart", scopes=PRESETS["full_access"])
        return str(account.id), issued.secret

    async def _first_owner_link(self, db: Database, account_id: UUID) -> str | None:
        """A link for the owner of the account, who is made if there is none; None once an owner has a password."""
        owners = [member for member in await members_of(db, account_id) if member.role != "member"]
        users = [await user_store.get(db, owner.user_id) for owner in owners]
        if any(user is not None and user.password is not None for user in users):
            return None
        user = users[0] if users else None
        if user is None:
            async with db.transaction() as connection:
                user = await user_store.insert(
                    connection, email=_FIRST_OWNER, name=_FIRST_OWNER_NAME, password=None
                ) or await user_store.by_email(connection, _FIRST_OWNER)
                assert user is not None
                await adopt(connection, account_id, user)
        token = await new_sign_in_link(db, user.id)
        return f"{self._console_origin}/console/link/{self.region}/{token}"

    async def first_generation(self) -> None:
        """Wait for the API; if the account has no generation yet, make a picture.

        A first generation that does not succeed is told, and ends nothing: the server runs.

        Raises:
            StartError: the API does not answer.
        """
        assert self.file is not None
        headers = {"Authorization": f"Bearer {self.file.api_key}", "Host": self._host}
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
        async with aiohttp.ClientSession(self._connect_base, headers=headers, timeout=timeout) as session:
            await _until_ready(session)
            try:
                async with asyncio.timeout(_GENERATION_TIMEOUT_S):
                    self.first = await _generate_once(session, self._shown.first)
            except (FirstGenerationError, aiohttp.ClientError, TimeoutError) as error:
                reason = str(error) or "it did not end in time"
                _log.warning("first_generation_failed", reason=reason)
                self.first = f"First generation failed: {reason}"

    def text(self) -> str:
        """What is printed when everything runs, and lines to paste; a key is shown when it is new, and only then."""
        assert self.file is not None
        base, key, shown = self.file.api_base, self.file.api_key, self.file.api_key
        if not self._key_is_new:
            shown = "as before, in the file below"
            key = f"""$(sed -n 's/.*"api_key": "\\(.*\\)".*/\\1/p' {shlex.quote(str(self._path))})"""
        first = "" if self.first is None else f"\n  {self.first}\n"
        console = f"\n  Console    {self.file.console_url}" if self._console else ""
        if self.sign_in_link is not None:
            console += f"\n  Sign in    {self.sign_in_link}"
            console += "\n             (once, within an hour; the next start prints another)"
        fox = _paste(
            base,
            key,
            "image",
            self._shown.image,
            '{"generation_prompt":"a red fox in fresh snow"}',
            "fox.jpg",
        )
        waves = _paste(
            base,
            key,
            "video",
            self._shown.video,
            '{"generation_prompt":"waves at night","generation_duration":5}',
            "waves.mp4",
        )
        return f"""
  BabySea is running.
{first}
  API base   {base}        (also api.us|eu|jp.localhost)
  API key    {shown}
  Region     {self.region}     Account {self.file.account_id}
  Reference  {base}/docs{console}
  Kept in    {self._path}

  Paste this into another terminal for a picture:

{fox}

  and this for a video of five seconds:

{waves}

  {self._shown.note}
  Ctrl-C stops; data stays.
"""


def _paste(base: str, key: str, media: str, model: str, body: str, file: str) -> str:
    """Shell lines that need nothing but curl and sed; they end however the generation ends."""
    return f"""\
    AUTH="Authorization: Bearer {key}"
    ID=$(curl -s {base}/v1/generate/{media}/{model} -H "$AUTH" -H "Content-Type: application/json" \\
         -d '{body}' | sed 's/.*"generation_id":"\\([^"]*\\)".*/\\1/')
    until curl -s {base}/v1/content/$ID -H "$AUTH" > answer.json
          grep -qE '"(succeeded|failed|canceled|error)"' answer.json; do sleep 1; done
    curl -s -o {file} "$(sed 's/.*"generation_output_file":\\["\\([^"]*\\)".*/\\1/' answer.json)" && ls -l {file}"""


async def _until_ready(session: aiohttp.ClientSession) -> None:
    give_up_at = time.monotonic() + _READY_TIMEOUT_S
    problem = "no answer"
    while True:
        try:
            async with session.get("/v1/status") as response:
                if response.status == 200:
                    return
                problem = f"HTTP {response.status} {(await response.text())[:200]}"
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = str(error) or "no answer"
        if time.monotonic() > give_up_at:
            raise StartError(f"the API did not answer within {_READY_TIMEOUT_S:g} s: {problem}")
        await asyncio.sleep(0.05)


async def _generate_once(session: aiohttp.ClientSession, model: str) -> str | None:
    """Make the very first generation, if there is none yet; returns how it went."""
    async with session.get("/v1/content/list?limit=1") as response:
        if _data(await response.json(), "the list of generations")["generations"]:
            return None
    started = time.monotonic()
    body = {"generation_prompt": _FIRST_PROMPT}
    async with session.post(f"/v1/generate/image/{model}", json=body) as response:
        generation_id = _data(await response.json(), "the request")["generation_id"]
    while True:
        async with session.get(f"/v1/content/{generation_id}") as response:
            generation = _data(await response.json(), "the generation")
        if generation["generation_status"] in ("succeeded", "failed", "canceled"):
            break
        await asyncio.sleep(0.05)
    if generation["generation_status"] != "succeeded":
        raise FirstGenerationError(generation.get("generation_error") or generation["generation_status"])
    link = generation["generation_output_file"][0]
    return f"First generation finished in {time.monotonic() - started:.1f} s:\n  {link}"


def _data(answer: dict[str, Any], what: str) -> dict[str, Any]:
    if answer.get("status") != "success":
        message = answer.get("error", {}).get("message", "no reason given")
        raise FirstGenerationError(f"{what} was refused: {message}")
    data: dict[str, Any] = answer["data"]
    return data


def _authority(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _write_private(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content + b"\n")
    fresh.replace(path)
