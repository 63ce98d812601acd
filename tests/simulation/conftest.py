"""One database for all simulations of a test process: making it costs more than a hundred of them."""

from collections.abc import Iterator

import pytest
from tests.simulation.database import Server

from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.db.embedded import EmbeddedPostgres


@pytest.fixture(scope="session")
def server(postgres: EmbeddedPostgres) -> Iterator[Server]:
    """The database that simulations have, one after the other."""
    server = Server(postgres, "simulation")
    yield server
    server.close()


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The project's own catalog."""
    return load_catalog(None)
