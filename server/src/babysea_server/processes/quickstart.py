"""What a newcomer gets at the first start: an account with credits, a key, a first generation, lines to paste."""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from babysea_server.accounts import store as accounts
from babysea_server.db.cluster import Cluster
from babysea_server.db.pool import Database
from babysea_server.keys import store as keys
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import hash_of, issue
from babysea_server.kit.money import MICROS_PER_CREDIT
from babysea_server.ledger import store as ledger
from babysea_server.settings import Settings

_FIRST_CREDITS = 100
_FIRST_PLAN = "unlimited"
_FIRST_MODEL = "bfl/flux-schnell"
_FIRST_PROMPT = "A lighthouse on a cliff at dawn, gulls in the wind"
_READY_TIMEOUT_S = 60.0
_GENERATION_TIMEOUT_S = 60.0


class QuickstartFile(msgspec.Struct, kw_only=True):
    """`<data_dir>/quickstart.json`, mode 0600."""

    api_base: str
    region: str
    account_id: str
    api_key: str
    console_url: str


class FirstGenerationError(RuntimeError):
    """The first generation did not succeed; the message says how it ended."""


class Quickstart:
    """The first account of the default region and its key, kept over restarts."""

    def __init__(self, settings: Settings, cluster: Cluster, port: int) -> None:
        host = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0", "::", "::1") else settings.host  # noqa: S104 - compared, not bound
        self.region = settings.default_region
        self.api_base = f"http://{host}:{port}"
        # The host that this process itself uses: a name may resolve to an address nobody listens on.
        connect = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
        self._connect_base = f"http://{f'[{connect}]' if ':' in connect else connect}:{port}"
        self._path = settings.data_path / "quickstart.json"
        self._dsn = cluster.dsn(self.region)
        self.file: QuickstartFile | None = None
        self.is_first = False
        self.first: Mapping[str, Any] | None = None
        self.first_seconds = 0.0

    async def prepare(self) -> None:
        """Find or make the first account and its key, and write the file."""
        db = Database(self._dsn, name="babysea-up", size=2)
        await db.open()
        try:
            account = await accounts.first(db)
            if account is None:
                self.is_first = True
                account = await accounts.create(db, name="First account", plan=_FIRST_PLAN)
                await ledger.add(db, account.id, _FIRST_CREDITS * MICROS_PER_CREDIT, "Welcome credits")
            secret = await self._known_key(db)
            if secret is None:
                issued = await issue(
                    db, account_id=account.id, name="Quickstart", scopes=PRESETS["full_access"]
                )
                secret, account_id = issued.secret, str(account.id)
            else:
                known = await keys.by_hash(db, hash_of(secret))
                account_id = str(known["account_id"])
        finally:
            await db.close()
        self.file = QuickstartFile(
            api_base=self.api_base,
            region=self.region,
            account_id=account_id,
            api_key=secret,
            console_url=f"{self.api_base}/console",
        )
        await asyncio.to_thread(
            _write_private, self._path, msgspec.json.format(msgspec.json.encode(self.file))
        )

    async def first_generation(self) -> None:
        """Wait for the API, and at the first start make a picture through it.

        Raises:
            FirstGenerationError: no answer, no success.
        """
        assert self.file is not None
        headers = {"Authorization": f"Bearer {self.file.api_key}"}
        async with aiohttp.ClientSession(self._connect_base, headers=headers) as session:
            await _until_ready(session)
            if not self.is_first:
                return
            started = time.monotonic()
            async with session.post(
                f"/v1/generate/image/{_FIRST_MODEL}", json={"generation_prompt": _FIRST_PROMPT}
            ) as response:
                accepted = await response.json()
            if accepted.get("status") != "success":
                raise FirstGenerationError(f"the first generation was refused: {accepted.get('error')}")
            path = f"/v1/content/{accepted['data']['generation_id']}"
            async with asyncio.timeout(_GENERATION_TIMEOUT_S):
                while True:
                    async with session.get(path) as response:
                        generation = (await response.json())["data"]
                    if generation["generation_status"] in ("succeeded", "failed", "canceled"):
                        break
                    await asyncio.sleep(0.1)
            self.first, self.first_seconds = generation, time.monotonic() - started
            if generation["generation_status"] != "succeeded":
                raise FirstGenerationError(
                    f"the first generation {generation['generation_status']}: {generation.get('generation_error')}"
                )

    async def _known_key(self, db: Database) -> str | None:
        """The key of an earlier start, if it still is one."""
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
            secret = msgspec.json.decode(text, type=QuickstartFile).api_key
        except (OSError, msgspec.DecodeError):
            return None
        key = await keys.by_hash(db, hash_of(secret))
        return secret if key is not None and key["state"] == "active" else None

    def text(self) -> str:
        """What is printed when everything runs: the key and lines to paste."""
        assert self.file is not None
        base, key = self.file.api_base, self.file.api_key
        first = ""
        if self.first is not None:
            link = self.first["generation_output_file"][0]
            first = f"\n  First generation finished in {self.first_seconds:.1f} s:\n  {link}\n"
        return f"""
  BabySea is running.
{first}
  API base   {base}        (also api.us|eu|jp.localhost)
  API key    {key}
  Region     {self.region}     Account {self.file.account_id}
  Kept in    {self._path}

  Paste this into another terminal for a picture:

{_paste(base, key, "image", "bfl/flux-schnell", '{"generation_prompt":"a red fox in fresh snow"}', "fox.jpg")}

  and this for a video of five seconds:

{
            _paste(
                base,
                key,
                "video",
                "wan/2.6-t2v",
                '{"generation_prompt":"waves at night","generation_duration":5}',
                "waves.mp4",
            )
        }

  Everything is drawn by the built-in sandbox until a provider is configured. Ctrl-C stops; data stays.
"""


def _paste(base: str, key: str, media: str, model: str, body: str, file: str) -> str:
    """Shell lines that need nothing but curl and sed."""
    return f"""\
    AUTH="Authorization: Bearer {key}"
    ID=$(curl -s {base}/v1/generate/{media}/{model} -H "$AUTH" -H "Content-Type: application/json" \\
         -d '{body}' | sed 's/.*"generation_id":"\\([^"]*\\)".*/\\1/')
    until curl -s {base}/v1/content/$ID -H "$AUTH" > answer.json; grep -q '"succeeded"' answer.json; do sleep 1; done
    curl -s -o {file} "$(sed 's/.*"generation_output_file":\\["\\([^"]*\\)".*/\\1/' answer.json)" && ls -l {file}"""


async def _until_ready(session: aiohttp.ClientSession) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            async with session.get("/v1/status", timeout=aiohttp.ClientTimeout(total=10)) as response:
                if response.status == 200:
                    return
        except (aiohttp.ClientError, TimeoutError):
            pass
        if time.monotonic() > deadline:
            raise FirstGenerationError(f"the API did not answer within {_READY_TIMEOUT_S:g} s")
        await asyncio.sleep(0.1)


def _write_private(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content + b"\n")
    fresh.replace(path)
