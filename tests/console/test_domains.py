"""Custom domains: asked for, verified against a real name server, answered by the API, given up."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from tests.conftest import deployment_settings
from tests.console.conftest import ConsoleClientOf
from tests.console.name_server import NameServer, name_server
from tests.console.support import ConsoleClient, activity_of, deployed
from tests.databases import Databases
from tests.support import Deployment, eventually, make_account

from babysea_server.accounts import domain_store, domains, notices
from babysea_server.accounts.activity import SYSTEM
from babysea_server.accounts.domain_check import DnsUnavailableError, DomainCheck
from babysea_server.accounts.domain_names import check_hostname, shown_hostname
from babysea_server.accounts.domain_store import Domain
from babysea_server.accounts.domains import DomainJob, Verdict
from babysea_server.app.selling import domain_site
from babysea_server.app.shared import build_shared
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from babysea_server.settings import SettingsError, load_settings

TARGET = "api.us.localhost"


@pytest.fixture(scope="module")
async def names() -> AsyncIterator[NameServer]:
    """The name server of this module's deployment."""
    async with name_server() as server:
        yield server


@pytest.fixture(scope="module")
async def console(databases: Databases, names: NameServer) -> AsyncIterator[Deployment]:
    """A deployment that asks that name server."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="babysea-domains-"))
        dsn = await stack.enter_async_context(databases.fresh())
        shared = build_shared(deployment_settings(Path(folder), dns_resolver=names.address))
        yield await stack.enter_async_context(deployed(shared, dsn))


def _name() -> str:
    return f"api-{uuid4().hex[:12]}.example.com"


async def _domain(client: ConsoleClient) -> Domain:
    found = await domain_store.of_account(client.deployment.db, client.account_id)
    assert found is not None
    return found


def _set_records(names: NameServer, domain: Domain) -> None:
    for record in domains.records(domain, TARGET):
        names.set(record.name, record.type, record.value)


async def _active(client: ConsoleClient, names: NameServer) -> Domain:
    """Add a domain and verify it."""
    await client.submit("/domains/new", {"hostname": _name()})
    _set_records(names, await _domain(client))
    await client.submit("/domains", action="/domains/verify")
    domain = await _domain(client)
    assert domain.state == "active"
    return domain


async def _key(client: ConsoleClient) -> str:
    issued = await issue(
        client.deployment.db, account_id=client.account_id, name="test", scopes=PRESETS["full_access"]
    )
    return issued.secret


async def _status(deployment: Deployment, host: str, key: str) -> httpx.Response:
    return await deployment.client.get("/v1/status", headers={"host": host, "authorization": f"Bearer {key}"})


async def _answers(deployment: Deployment, host: str, key: str, status: int) -> None:
    async def so() -> bool:
        return (await _status(deployment, host, key)).status_code == status

    await eventually(so)


# ------------------------------------------------------------------------------- the page


async def test_without_a_domain_the_page_says_what_to_do(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    html = await client.page("/domains")
    assert "Use a domain of your own" in html
    assert "http://localhost" in html


async def test_a_domain_is_added_verified_answered_and_removed(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    client = await console_client("owner")
    console = client.deployment
    host, key = _name(), await _key(client)
    added = await client.follow(await client.submit("/domains/new", {"hostname": f" {host.upper()}. "}))
    domain = await _domain(client)
    assert (domain.hostname, domain.state) == (host, "pending")
    for text in (TARGET, f"_babysea.{host}", f"babysea-domain={domain.id}", "Pending"):
        assert text in added.text
    refused = await _status(console, host, key)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "BSE1010"

    missing = await client.follow(await client.submit("/domains", action="/domains/verify"))
    assert "There is no CNAME record yet." in missing.text
    _set_records(names, domain)
    verified = await client.follow(await client.submit("/domains", action="/domains/verify"))
    assert f"{host} is active." in verified.text
    await _answers(console, host, key, 200)
    answer = await _status(console, f"{host}:443", key)
    assert answer.json()["data"]["apikey_name"] == "test"

    removed = await client.follow(await client.submit("/domains/remove"))
    assert f"{host} was removed." in removed.text
    await _answers(console, host, key, 403)
    actions = [action for action, _ in await activity_of(console, client.account_id)]
    assert actions == ["domain.added", "domain.verified", "domain.removed"]


async def test_keys_of_other_accounts_are_unknown_on_a_custom_domain(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    client = await console_client("owner")
    domain, own = await _active(client, names), await _key(client)
    _, foreign = await make_account(client.deployment.db, allowlist=["192.0.2.77"])
    await _answers(client.deployment, domain.hostname, own, 200)
    answer = await _status(client.deployment, domain.hostname, foreign)
    # Not even the allowlist tells that the key is one.
    unknown = await _status(client.deployment, domain.hostname, "bye_" + "x" * 40)
    same = ("code", "type", "message")
    assert [answer.json()["error"].get(name) for name in same] == [
        unknown.json()["error"].get(name) for name in same
    ]
    assert answer.status_code == unknown.status_code == 401
    assert "server-timing" not in answer.headers
    used = await client.deployment.db.fetchval(
        "SELECT count(*) FROM request_log WHERE account_id <> $1 AND status = 401", client.account_id
    )
    assert used == 0


async def test_files_and_the_document_are_there_and_the_console_is_not(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    client = await console_client("owner")
    domain, key = await _active(client, names), await _key(client)
    await _answers(client.deployment, domain.hostname, key, 200)
    http, headers = client.deployment.client, {"host": domain.hostname}
    document = await http.get("/openapi.json", headers=headers)
    assert document.json()["openapi"].startswith("3.")
    file = await http.get("/files/no/such", headers=headers)
    assert "the link needs the parameters" in file.text
    nowhere = await http.get("/files/no/such", headers={"host": "unknown.example.com"})
    assert "this host serves no files" in nowhere.text
    assert (await http.get("/console/sign-in", headers=headers)).status_code == 403
    # Which custom domains there are is nobody's business.
    other = await http.get("/v1/status", headers={"host": "unknown.example.com"})
    assert domain.hostname not in other.text


@pytest.mark.parametrize("role", ["primary-owner", "owner", "member"])
async def test_owners_manage_domains_and_members_look(
    console_client: ConsoleClientOf, names: NameServer, role: Any
) -> None:
    owner = await console_client("owner")
    domain = await _active(owner, names)
    client = await console_client(role, account_id=owner.account_id)
    html = await client.page("/domains")
    assert domain.hostname in html
    assert ("/domains/remove" in html) == (role != "member")
    answer = await client.post("/domains/verify")
    assert answer.status_code == (403 if role == "member" else 303)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "1 to 253 characters"),
        ("https://api.example.com", "without https://"),
        ("api.example.com:8443", "without https://"),
        ("*.example.com", "Enter one name"),
        ("192.0.2.7", "IP address"),
        ("0x7f.1", "IP address"),
        ("intranet", "Enter the name in full"),
        ("api.us.localhost", "not one of the public internet"),
        ("printer.local", "not one of the public internet"),
        ("under_score.example.com", "not a host name"),
        ("-a.example.com", "not a host name"),
        ("a..example.com", "not a host name"),
        ("<script>alert(1)</script>.example.com", "without https://"),
        ("a b.example.com", "not a host name"),
        ("x" * 64 + ".example.com", "not a host name"),
        (".".join(["abcdefgh"] * 40), "1 to 253 characters"),
    ],
)
async def test_what_is_no_host_name_is_refused_with_the_reason(
    console_client: ConsoleClientOf, typed: str, says: str
) -> None:
    client = await console_client("owner")
    response = await client.submit("/domains/new", {"hostname": typed})
    assert response.status_code == 422
    assert says in response.text
    assert "<script>alert" not in response.text
    assert await domain_store.of_account(client.deployment.db, client.account_id) is None


def test_names_of_the_installation_cannot_be_taken() -> None:
    settings = load_settings(
        {}, overrides={"domain": "media.example.org", "console_url": "https://console.example.net"}
    )
    own = domain_site(settings, "us").own
    for name in ("media.example.org", "api.us.media.example.org", "Console.Example.net"):
        with pytest.raises(ValueError, match="installation itself"):
            check_hostname(name, own)
    assert check_hostname("media.example.net", own) == "media.example.net"


def test_international_names_are_kept_as_dns_has_them() -> None:
    kept = check_hostname("API.Bücher.example")
    assert kept == "api.xn--bcher-kva.example"
    assert shown_hostname(kept) == "api.bücher.example"
    assert check_hostname("例え.テスト.example") == "xn--r8jz45g.xn--zckzah.example"


async def test_an_account_has_one_domain(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    await client.submit("/domains/new", {"hostname": _name()})
    again = await client.submit("/domains/new", {"hostname": _name()})
    assert again.status_code == 422
    assert "Remove it first." in again.text


# ------------------------------------------------------------------------------- whose it is


async def test_the_cname_alone_does_not_say_whose_a_domain_is(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    rightful, other = await console_client("owner"), await console_client("owner")
    host = _name()
    for client in (other, rightful):
        await client.submit("/domains/new", {"hostname": host})
    _set_records(names, await _domain(rightful))
    stolen = await other.follow(await other.submit("/domains", action="/domains/verify"))
    assert "the TXT record is not there yet" in stolen.text
    assert (await _domain(other)).state == "pending"
    await rightful.submit("/domains", action="/domains/verify")
    assert (await _domain(rightful)).state == "active"

    # Whoever could set both records now is still too late, and a third account cannot even ask.
    names.set(f"_babysea.{host}", "TXT", f"babysea-domain={(await _domain(other)).id}")
    late = await other.follow(await other.submit("/domains", action="/domains/verify"))
    assert "Another account of this region has this domain." in late.text
    third = await (await console_client("owner")).submit("/domains/new", {"hostname": host})
    assert third.status_code == 422
    assert "Another account of this region has this domain." in third.text


async def test_a_cname_may_lead_here_over_others_and_not_elsewhere(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    client = await console_client("owner")
    await client.submit("/domains/new", {"hostname": _name()})
    domain = await _domain(client)
    site = client.deployment.api.regions["us"].domain_site
    _set_records(names, domain)
    names.set(domain.hostname, "CNAME", "elsewhere.example.net")
    names.set("elsewhere.example.net", "CNAME", domain.hostname)  # in a circle
    assert await _verdict(client, domain) is Verdict.OTHER_CNAME
    names.set("elsewhere.example.net", "CNAME", site.target)
    assert await _verdict(client, domain) is Verdict.VERIFIED
    names.set("elsewhere.example.net", "CNAME")


async def _verdict(client: ConsoleClient, domain: Domain) -> Verdict:
    site = client.deployment.api.regions["us"].domain_site
    return await domains.verify(client.deployment.db, domain, site, actor=SYSTEM)


async def test_a_name_server_without_an_answer_says_nothing_about_the_domain(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    client = await console_client("owner")
    domain = await _active(client, names)
    names.refuses = True
    try:
        shown = await client.follow(await client.submit("/domains", action="/domains/verify"))
        await _make_due(client, domain.id, verified_ago_s=domains.LOST_AFTER_S * 2)
        await _job(client).run()
    finally:
        names.refuses = False
    assert "The name server did not answer." in shown.text
    assert (await _domain(client)).state == "active"


async def test_the_records_of_a_name_are_joined_and_unreachable_servers_are_told() -> None:
    async with name_server() as server:
        server.records["a.example.com", "TXT"] = ['"one " "part"', '"two"']
        check = DomainCheck(server.address)
        assert sorted(await check.texts("a.example.com")) == ["one part", "two"]
        assert await check.leads_to("a.example.com") == []
        assert await check.leads_to("b.example.com") == []
    with pytest.raises(DnsUnavailableError):
        await DomainCheck(server.address, deadline_s=0.2).texts("a.example.com")


@pytest.mark.parametrize("text", ["name.example.com", "192.0.2.1:0", "192.0.2.1:99999", "[::1", "::1:x"])
def test_a_resolver_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="dns_resolver"):
        domain_site(load_settings({}, overrides={"dns_resolver": text}), "us")


# ------------------------------------------------------------------------------- looked at again


def _job(client: ConsoleClient) -> DomainJob:
    return DomainJob(client.deployment.db, client.deployment.api.regions["us"].domain_site)


async def _make_due(client: ConsoleClient, domain_id: UUID, *, verified_ago_s: float) -> None:
    await client.deployment.db.execute(
        """UPDATE custom_domains SET checked_at = now() - interval '1 day',
               verified_at = now() - make_interval(secs => $2) WHERE id = $1""",
        domain_id,
        verified_ago_s,
    )


async def test_a_pending_domain_becomes_active_by_itself(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    client = await console_client("owner")
    await client.submit("/domains/new", {"hostname": _name()})
    _set_records(names, await _domain(client))
    await _job(client).run()
    assert (await _domain(client)).state == "active"
    await _answers(client.deployment, (await _domain(client)).hostname, await _key(client), 200)
    asked = len(names.asked)
    await _job(client).run()
    assert len(names.asked) == asked, "what has just been looked at is not due"


async def test_a_domain_whose_cname_is_gone_for_long_becomes_pending_with_a_notice(
    console_client: ConsoleClientOf, names: NameServer
) -> None:
    client = await console_client("owner")
    domain, key = await _active(client, names), await _key(client)
    await _answers(client.deployment, domain.hostname, key, 200)
    names.set(domain.hostname, "CNAME")
    await _make_due(client, domain.id, verified_ago_s=domains.LOST_AFTER_S - 60)
    await _job(client).run()
    assert (await _domain(client)).state == "active", "not yet"
    await _make_due(client, domain.id, verified_ago_s=domains.LOST_AFTER_S + 60)
    await _job(client).run()
    assert (await _domain(client)).state == "pending"
    await _answers(client.deployment, domain.hostname, key, 403)
    found = await notices.page(client.deployment.db, client.account_id)
    assert [notice.kind for notice in found] == [domains.LOST]
    assert domain.hostname in found[0].text
    assert "was gone for more than 72 hours" in await client.page("/domains")
    # Back again, with both records.
    _set_records(names, domain)
    await client.submit("/domains", action="/domains/verify")
    await _answers(client.deployment, domain.hostname, key, 200)


async def test_a_domain_goes_with_its_account(console_client: ConsoleClientOf, names: NameServer) -> None:
    client = await console_client("owner")
    domain, key = await _active(client, names), await _key(client)
    await _answers(client.deployment, domain.hostname, key, 200)
    await client.deployment.db.execute("DELETE FROM accounts WHERE id = $1", client.account_id)
    await _answers(client.deployment, domain.hostname, key, 403)
