from pathlib import Path

import pytest
from tests.outputs.samples import TurnedClock

from babysea_server.outputs.links import LinkSigner
from babysea_server.outputs.store import ObjectStore, open_store


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(None, tmp_path)


@pytest.fixture
def signer(clock: TurnedClock) -> LinkSigner:
    return LinkSigner(bytes(range(32)), clock)
