"""The programs of `sdk/examples`, run as a reader runs them, against a live server."""

import ast
import asyncio
import json
import os
import shutil
import sys
from contextlib import redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.contract.sockets import serving
from tests.docs.pages import ROOT, links, page
from tests.sdk.conftest import Live
from tests.sdk.mcp.assistants import listening
from tests.support import eventually, make_customer

from babysea_server.app.shared import build_shared
from babysea_server.webhooks import endpoints
from babysea_server.webhooks.secrets import SecretBox

FOLDER = ROOT / "sdk" / "examples"


async def _run(live: Live, folder: Path, *command: str | Path) -> list[str]:
    """What a program writes to stdout, run in a folder of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "BABYSEA_API_KEY": live.customer.key,
        "BABYSEA_BASE_URL": live.base_url,
        "no_proxy": "*",
    }
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode().splitlines()


def _is_picture(path: Path) -> bool:
    head = path.read_bytes()[:12]
    return head.startswith((b"\x89PNG", b"\xff\xd8\xff")) or head[8:] == b"WEBP"


@pytest.mark.parametrize("name", ["quickstart.py", "plain_httpx.py"])
async def test_a_program_saves_a_picture(live: Live, tmp_path: Path, name: str) -> None:
    [path] = await _run(live, tmp_path, sys.executable, FOLDER / name)
    assert _is_picture(tmp_path / path)


async def test_curl_is_enough(live: Live, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the example needs curl, which is not on this machine")
    [path] = await _run(live, tmp_path, "sh", FOLDER / "plain_curl.sh", 'a "red" fox \\ in snow')
    assert _is_picture(tmp_path / path)
    newest = (await live.customer.request("GET", "/v1/content/list?limit=1")).json()["data"]["generations"][0]
    assert newest["generation_prompt"] == 'a "red" fox \\ in snow'


async def test_a_batch_that_is_run_again_buys_nothing_more(live: Live, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a fox\n\n  an owl\na whale\n")
    command = (sys.executable, FOLDER / "async_batch.py", "prompts.txt", "pictures")
    first = await _run(live, tmp_path, *command)
    balance = await live.customer.balance()
    assert await _run(live, tmp_path, *command) == first
    assert await live.customer.balance() == balance
    assert len(first) == 3
    assert all(_is_picture(tmp_path / path) for path in first)


def _app(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spec = spec_from_file_location("example_app", FOLDER / "fastapi_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "example_app", module)  # where the types of its routes are looked up
    spec.loader.exec_module(module)
    return module.create_app()


async def test_the_app_learns_by_webhook_what_became_of_its_pictures(
    make_deployment: MakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = await make_deployment(webhooks_allow_private=True)
    customer = await make_customer(deployment)
    async with serving(deployment.api) as server, httpx.AsyncClient(trust_env=False) as http:
        environment = {
            "BABYSEA_API_KEY": customer.key,
            "BABYSEA_BASE_URL": f"http://127.0.0.1:{server}",
        }
        # The endpoint's secret comes into being with its address, and the app wants the secret when it starts.
        late = _Late()
        async with listening(late) as port:
            box = SecretBox(build_shared(deployment.settings).master_key)
            hook = await endpoints.create(
                deployment.db, box, customer.account_id,
                url=f"http://127.0.0.1:{port}/webhooks/babysea", allow_private=True,
            )  # fmt: skip
            late.app = _app(monkeypatch, **environment, BABYSEA_WEBHOOK_SECRET=hook.secret)
            base = f"http://127.0.0.1:{port}"

            async def became(prompt: str) -> dict[str, Any]:
                accepted = await http.post(f"{base}/pictures", json={"prompt": prompt})
                assert accepted.status_code == 202, accepted.text

                async def final() -> dict[str, Any] | None:
                    found = (await http.get(f"{base}/pictures/{accepted.json()['id']}")).json()
                    return found if found["status"] != "pending" else None

                return await eventually(final)

            made = await became("a fox")
            failed = await became("x [sandbox:refuse_policy]")
            forged = await http.post(f"{base}/webhooks/babysea", json={"webhook_event": "generation.failed"})
            unknown = await http.get(f"{base}/pictures/1")
    assert made["status"] == "succeeded"
    assert made["links"]
    assert (failed["status"], bool(failed["reason"])) == ("failed", True)
    assert (forged.status_code, unknown.status_code) == (400, 404)


class _Late:
    """An application that can be named after its address is known."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await self.app(scope, receive, send)


async def test_the_cells_of_the_gallery_run_and_show_the_pictures(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BABYSEA_API_KEY", live.customer.key)
    monkeypatch.setenv("BABYSEA_BASE_URL", live.base_url)
    notebook = json.loads((FOLDER / "gallery.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}

    def run() -> str:
        *statements, last = ast.parse("\n\n".join(cells)).body
        assert isinstance(last, ast.Expr)
        with redirect_stdout(StringIO()):
            exec(compile(ast.Module(statements, []), "gallery", "exec"), names)
        html: str = eval(compile(ast.Expression(last.value), "gallery", "eval"), names)._repr_html_()
        names["client"].close()
        return html

    html = await asyncio.to_thread(run)
    assert html.count('<img src="data:image/') == 3
    assert html.count("credits</figcaption>") == 3
    assert all(not cell.get("outputs") for cell in notebook["cells"]), (
        "no pictures are kept in the repository"
    )


def test_the_pages_name_every_example_and_lead_somewhere() -> None:
    examples = {path.name for path in FOLDER.iterdir()} - {"README.md", "__pycache__"}
    for name in ("sdk/examples/README.md", "docs/examples.md"):
        found = [link for link in links(page(name)) if not link.startswith("https://")]
        base = (ROOT / name).parent
        assert [link for link in found if not (base / link).exists()] == []
        shown = {
            (base / link).resolve().relative_to(FOLDER).parts[0]
            for link in found
            if (base / link).resolve().is_relative_to(FOLDER)
        }
        assert examples <= shown | {"README.md"}, name
