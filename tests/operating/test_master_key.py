"""The master key is changed while everything runs: old and new processes together, then without the old key."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from tests.cli.conftest import Commands, commands
from tests.conftest import MakeDeployment
from tests.console.support import console_of, make_person, open_client
from tests.support import Customer, Deployment, ManualClock, make_account
from tests.webhooks.receiver import receiver

from babysea_server.accounts.profiles import email_change_token
from babysea_server.app.shared import Shared, build_shared
from babysea_server.console.oidc import begin_way
from babysea_server.kit.clock import SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.outputs.links import BadLinkError, LinkSigner
from babysea_server.providers.callbacks import PREFIX, CallbackAddresses
from babysea_server.webhooks import endpoints
from babysea_server.webhooks.secrets import SecretBox

__all__ = ["commands"]

OLD, NEW = "o" * 40, "n" * 40


def _shared(deployment: Deployment) -> Shared:
    return build_shared(deployment.settings)


def _path(link: str) -> str:
    parts = urlsplit(link)
    return f"{parts.path}?{parts.query}"


async def _fetch(deployment: Deployment, link: str) -> int:
    # Past the client that holds every answer against the published document: files are not in it.
    transport = httpx.ASGITransport(app=deployment.api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return (await client.get(_path(link))).status_code


def _token(deployment: Deployment, attempt_id: UUID) -> str:
    shared = _shared(deployment)
    addresses = CallbackAddresses(shared.master_key, "us", "http://127.0.0.1")
    url = addresses.url("replicate", attempt_id)
    assert url is not None
    return url.partition(f"{PREFIX}replicate/")[2]


async def test_processes_before_and_after_the_change_accept_each_others_links_forms_callbacks_and_secrets(
    make_deployment: MakeDeployment, dsn: str, tmp_path: Path, commands: Commands
) -> None:
    before = await make_deployment(
        master_key=OLD, master_key_other=NEW, webhooks_allow_private=True, worker=False
    )
    after = await make_deployment(
        master_key=NEW, master_key_other=OLD, webhooks_allow_private=True, worker=True
    )
    account_id, key = await make_account(before.db)
    customers = [Customer(deployment, account_id, key) for deployment in (before, after)]
    async with receiver() as hooks:
        # The secrets of both are opened by whoever delivers.
        for deployment, path in ((before, "/sealed-before"), (after, "/sealed-after")):
            await endpoints.create(
                deployment.db,
                SecretBox(_shared(deployment).master_key),
                account_id,
                url=f"{hooks.origin}{path}",
                allow_private=True,
            )
        made = await customers[0].made()
        assert made["generation_status"] == "succeeded"
        await hooks.has("/sealed-before", 2)
        await hooks.has("/sealed-after", 2)

    for one, other in (customers, customers[::-1]):
        [link] = (await one.generation(made["generation_id"]))["generation_output_file"]
        assert await _fetch(one.deployment, link) == await _fetch(other.deployment, link) == 200
        attempt_id = uuid7()
        callbacks = other.deployment.api.regions["us"].callbacks
        assert callbacks.attempt("replicate", _token(one.deployment, attempt_id)) == attempt_id
        person = await make_person(one.deployment, account_id, "owner")
        async with (
            open_client(one.deployment, person) as here,
            open_client(other.deployment, person) as there,
        ):
            sent = await there.http.post(
                there.url("/api-keys/new"),
                data={"csrf": here.csrf, "name": person.slug, "preset": "read_only"},
            )
            assert sent.status_code != 403

    # What is still under the old key is sealed anew, and then nobody needs that key.
    environment = {
        "DATABASE_URL_US": dsn,
        "BABYSEA_REGIONS": "us",
        "MASTER_KEY": NEW,
        "BABYSEA_DATA_DIR": str(tmp_path / "elsewhere"),
    }
    refused = commands("secrets", "reseal", environment=environment)
    assert refused.code == 1
    assert "MASTER_KEY_OTHER" in refused.err
    both = {**environment, "MASTER_KEY_OTHER": OLD}
    assert commands("secrets", "reseal", "--json", environment=both).json == {"secrets_resealed": {"us": 1}}
    assert commands("secrets", "reseal", "--json", environment=both).json == {"secrets_resealed": {"us": 0}}
    sealed = await after.db.fetch("SELECT secret FROM webhook_endpoints")
    alone = SecretBox(build_shared(before.settings).other_master_key or b"")
    assert len({alone.open(row["secret"]) for row in sealed}) == 2


async def test_without_the_other_key_what_was_signed_under_it_is_strange(
    make_deployment: MakeDeployment,
) -> None:
    before = await make_deployment(master_key=OLD)
    alone = await make_deployment(master_key=NEW, worker=False)
    account_id, key = await make_account(before.db)
    made = await Customer(before, account_id, key).made()
    [link] = made["generation_output_file"]
    assert (await _fetch(before, link), await _fetch(alone, link)) == (200, 403)
    assert alone.api.regions["us"].callbacks.attempt("replicate", _token(before, uuid7())) is None
    [fresh] = (await Customer(alone, account_id, key).generation(made["generation_id"]))[
        "generation_output_file"
    ]
    assert await _fetch(alone, fresh) == 200


async def test_links_in_mail_and_ways_back_from_an_identity_provider_outlive_the_change(
    make_deployment: MakeDeployment,
) -> None:
    issuer: dict[str, Any] = {
        "oidc_issuer": "https://login.example.com",
        "oidc_client_id": "c",
        "worker": False,
    }
    before = await make_deployment(master_key=OLD, **issuer)
    after = await make_deployment(master_key=NEW, master_key_other=OLD, **issuer)
    alone = await make_deployment(master_key=NEW, **issuer)
    account_id, _ = await make_account(before.db)
    person = await make_person(before, account_id, "owner")
    now = SystemClock().now()
    old = console_of(before).regions["us"].keys.forms
    token = email_change_token(old, person.user, "new@example.com", now)
    way = begin_way(old, "visit", "us", "/console", now)
    for deployment, mail, back in ((after, 200, 502), (alone, 404, 403)):
        async with open_client(deployment) as client:
            shown = await client.get("/console/email/us", params={"token": token})
            assert shown.status_code == mail
            client.http.cookies.set("babysea-visit", "visit", domain="localhost.local")
            # It is known, and comes without a code of the provider.
            came = await client.get("/console/oidc/callback", params={"state": way.state})
            assert came.status_code == back


def test_a_key_that_is_accepted_never_signs() -> None:
    clock = ManualClock()
    both = LinkSigner(b"n" * 32, clock, other=b"o" * 32)
    link = both.sign("", "us", "outputs/a")
    assert link == LinkSigner(b"n" * 32, clock).sign("", "us", "outputs/a")
    given = dict(part.split("=") for part in link.partition("?")[2].split("&"))
    with pytest.raises(BadLinkError):
        LinkSigner(b"o" * 32, clock).verify("us", "outputs/a", given["expires"], given["signature"])
    with pytest.raises(ValueError, match="at least 32 bytes"):
        LinkSigner(b"n" * 32, clock, other=b"short")


async def test_a_file_that_a_rotation_left_is_accepted_until_it_is_deleted(
    make_deployment: MakeDeployment, tmp_path: Path
) -> None:
    (tmp_path / "master.key").write_text(OLD)
    before = await make_deployment()
    (tmp_path / "master.key").write_text(NEW)
    (tmp_path / "master.key.old").write_text(OLD)
    after = await make_deployment(worker=False)
    account_id, key = await make_account(before.db)
    [link] = (await Customer(before, account_id, key).made())["generation_output_file"]
    assert await _fetch(after, link) == 200
    (tmp_path / "master.key.old").unlink()
    later = await make_deployment(worker=False)
    assert await _fetch(later, link) == 403
