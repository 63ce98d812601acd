"""The example receivers behind real HTTP, and what their page says to paste."""

import asyncio
import importlib.util
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from tests.contract.sockets import serving
from tests.docs.pages import ROOT, blocks, links, page
from tests.sdk.signing import DELIVERY_ID, GENERATION, OTHER, SECRET, body, signed, standard_signed
from werkzeug.serving import make_server

_FOLDER = "sdk/examples/webhooks"
_PATH = "/webhooks/babysea"
_BODY = body(data={**GENERATION, "generation_output_file": ["https://files.example/a.png"]})


def _create(name: str) -> Any:
    """The application of an example, which is a program and not part of a package."""
    spec = importlib.util.spec_from_file_location(f"webhooks_example_{name}", ROOT / _FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.create_app()


@asynccontextmanager
async def _flask() -> AsyncIterator[int]:
    server = make_server("127.0.0.1", 0, _create("flask_app"), threaded=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, bytes, int]]]:
    """The environment of an example with two secrets, and what its inbox holds."""
    monkeypatch.setenv("BABYSEA_WEBHOOK_SECRET", f"{SECRET} {OTHER}")
    monkeypatch.setenv("WEBHOOK_INBOX", str(tmp_path / "webhooks.sqlite3"))

    def rows() -> list[tuple[str, bytes, int]]:
        with closing(sqlite3.connect(tmp_path / "webhooks.sqlite3")) as db:
            return db.execute("SELECT delivery_id, body, handled FROM inbox ORDER BY rowid").fetchall()

    return rows


@pytest.fixture(params=["fastapi", "flask"])
async def url(request: pytest.FixtureRequest, inbox: Any) -> AsyncIterator[str]:
    """Where an example listens."""
    served = serving(_create("fastapi_app")) if request.param == "fastapi" else _flask()
    async with served as port:
        yield f"http://127.0.0.1:{port}{_PATH}"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


async def test_a_signed_webhook_is_kept_and_answered_204(
    url: str, http: httpx.AsyncClient, inbox: Any
) -> None:
    now = int(time.time())
    answer = await http.post(url, content=_BODY, headers=signed(_BODY, at=now))

    assert (answer.status_code, answer.content) == (204, b"")
    assert inbox() == [(DELIVERY_ID, _BODY, 0)]


async def test_a_delivery_that_comes_again_is_kept_once(
    url: str, http: httpx.AsyncClient, inbox: Any
) -> None:
    now = int(time.time())
    attempts = [
        signed(_BODY, at=now),
        signed(_BODY, at=now - 5),
        signed(_BODY, OTHER, now),
        standard_signed(_BODY, at=now),
    ]
    answers = await asyncio.gather(*(http.post(url, content=_BODY, headers=headers) for headers in attempts))

    assert [answer.status_code for answer in answers] == [204] * 4
    assert inbox() == [(DELIVERY_ID, _BODY, 0)]


async def test_a_forged_an_old_and_an_unsigned_webhook_are_refused(
    url: str, http: httpx.AsyncClient, inbox: Any
) -> None:
    now = int(time.time())
    forged = await http.post(url, content=_BODY.replace(b"flux", b"f1ux"), headers=signed(_BODY, at=now))
    old = await http.post(url, content=_BODY, headers=signed(_BODY, at=now - 3600))
    unsigned = await http.post(url, content=_BODY)

    assert [answer.status_code for answer in (forged, old, unsigned)] == [400] * 3
    assert "no signature matches" in forged.text
    assert "signature too old" in old.text
    assert "missing header X-BabySea-Signature" in unsigned.text
    assert inbox() == []


async def test_a_body_beyond_the_limit_is_refused(url: str, http: httpx.AsyncClient, inbox: Any) -> None:
    payload = body(data={**GENERATION, "note": "x" * (1 << 20)})
    answer = await http.post(url, content=payload, headers=signed(payload, at=int(time.time())))

    assert answer.status_code == 413
    assert inbox() == []


async def test_the_request_of_the_page_is_accepted(url: str, inbox: Any) -> None:
    for program in ("sh", "openssl", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"the page's request needs {program}, which is not on this machine")
    (request,) = (block for block in blocks(page(f"{_FOLDER}/README.md"), "sh") if "openssl" in block)
    environment = {"PATH": os.environ["PATH"], "BABYSEA_WEBHOOK_SECRET": SECRET, "url": url, "no_proxy": "*"}
    process = await asyncio.create_subprocess_exec(
        "sh", "-euc", request, env=environment, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate()

    assert process.returncode == 0
    assert b" 204 " in answer.splitlines()[0]
    assert [delivery_id for delivery_id, _, _ in inbox()] == ["try-1"]


async def test_the_worker_of_the_page_handles_each_delivery_once(
    url: str, http: httpx.AsyncClient, inbox: Any, tmp_path: Path
) -> None:
    failed = body(
        "generation.failed", {**GENERATION, "generation_error_code": "BSE4001"}, webhook_delivery_id="two"
    )
    for payload in (_BODY, failed):
        await http.post(url, content=payload, headers=signed(payload, at=int(time.time())))
    (worker,) = blocks(page(f"{_FOLDER}/README.md"), "python")

    def work() -> list[str]:
        command = [sys.executable, "-c", worker]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    id = GENERATION["generation_id"]
    assert await asyncio.to_thread(work) == [
        f"{id} is done: https://files.example/a.png",
        f"{id} failed and was refunded: BSE4001",
    ]
    assert [handled for _, _, handled in inbox()] == [1, 1]
    assert await asyncio.to_thread(work) == []


def test_an_example_does_not_start_without_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BABYSEA_WEBHOOK_SECRET", raising=False)
    for name in ("fastapi_app", "flask_app"):
        with pytest.raises(KeyError, match="BABYSEA_WEBHOOK_SECRET"):
            _create(name)


def test_the_links_of_the_page_lead_somewhere() -> None:
    relative = [link for link in links(page(f"{_FOLDER}/README.md")) if not link.startswith("https://")]
    assert relative
    assert [link for link in relative if not (ROOT / _FOLDER / link).exists()] == []
