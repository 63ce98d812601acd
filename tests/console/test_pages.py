"""Every page of the sidebar is there, for every role."""

import pytest
from tests.console.conftest import ConsoleClientOf

from babysea_server.accounts.roles import ROLES, Role
from babysea_server.console.navigation import SIDEBAR


@pytest.mark.parametrize("role", ROLES)
async def test_every_entry_of_the_sidebar_leads_to_a_page(
    console_client: ConsoleClientOf, role: Role
) -> None:
    client = await console_client(role)
    for entry in SIDEBAR:
        html = await client.page(entry.path)
        assert 'aria-current="page"' in html
        assert entry.label in html
