"""The simulation finds what is put into the server on purpose: what it does not see, it lets through."""

import pytest
from tests.simulation.database import Server
from tests.simulation.mutations import MUTATIONS
from tests.simulation.test_simulation import SEEDS
from tests.simulation.world import simulate

from babysea_server.catalog.catalog import Catalog


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_is_found_within_the_seeds_that_every_change_is_tried_with(
    server: Server, catalog: Catalog, name: str
) -> None:
    with MUTATIONS[name].made(server):
        assert any(simulate(server, catalog, seed).breaches for seed in range(SEEDS)), name
