"""The first owner: a link at every start, until there is a password."""

import msgspec
from tests.conftest import MakeDeployment
from tests.console.support import open_client

from babysea_server.accounts import user_store
from babysea_server.processes.quickstart import Quickstart, showcase


async def test_each_start_prints_a_link_until_an_owner_has_a_password(
    make_deployment: MakeDeployment, dsn: str
) -> None:
    deployment = await make_deployment(worker=False)

    async def start(**changes: bool) -> Quickstart:
        settings = msgspec.structs.replace(deployment.settings, **changes)
        quickstart = Quickstart(settings, dsn, 80, showcase(settings))
        await quickstart.prepare()
        return quickstart

    first, second = await start(), await start()
    assert first.file is not None
    assert first.file.console_url == "http://localhost:80/console"
    assert first.sign_in_link is not None
    assert second.sign_in_link is not None
    assert second.sign_in_link in second.text()
    paths = [link.removeprefix("http://localhost:80") for link in (first.sign_in_link, second.sign_in_link)]
    async with open_client(deployment) as client:
        assert (await client.get(paths[0])).status_code == 404
        response = await client.submit(paths[1])
        home = await client.follow(await client.follow(response))
        assert home.url.path == "/console/us/first-account/metrics"
        assert "have no password yet" in home.text
        assert "$100.000" in home.text
    users = await user_store.page(deployment.db, limit=10)
    assert len(users) == 1
    await user_store.set_password(deployment.db, users[0].id, "a hash")
    third = await start()
    assert third.sign_in_link is None
    assert "/console/link/" not in third.text()
    assert (await start(console_enabled=False)).sign_in_link is None
