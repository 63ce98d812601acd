"""A backup taken under load comes back: clean books, every generation ends, every file can be fetched."""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.e2e.system import Api, System
from tests.emulators.kit import SECRET, running
from tests.emulators.replicate import ReplicateEmulator
from tests.operating.conftest import book, books_are_clean, customer_of, shell

from babysea_server.db.embedded import EmbeddedPostgres

# Real processes, started and ended several times: slow on a machine that is busy.
pytestmark = pytest.mark.timeout(300)

_MODEL = "bfl/flux-schnell"
_NEVER = 10**9

_KNOWN = """
SELECT g.id::text AS id, g.inputs ->> 'generation_prompt' AS prompt, g.status::text AS status,
       EXISTS (SELECT FROM attempts a WHERE a.generation_id = g.id) AS submitted
FROM generations g
"""


@pytest.fixture
async def replicate() -> AsyncIterator[ReplicateEmulator]:
    """A provider outside, which no backup takes back to yesterday."""
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        yield emulator


def _buying_from(emulator: ReplicateEmulator) -> dict[str, str]:
    return {
        "BABYSEA_PROVIDER_REPLICATE_API_KEY": SECRET,
        "BABYSEA_PROVIDER_REPLICATE_BASE_URL": emulator.base_url,
        "BABYSEA_PROVIDER_REPLICATE_PRIVATE_NETWORK": "true",
        "BABYSEA_WORKER_CONCURRENCY": "12",
    }


def _dsn(system: System) -> str:
    return EmbeddedPostgres(system.data_dir).dsn("babysea_us")


async def _started(system: System) -> Api:
    """An API and a worker, and a customer."""
    _, api = await system.api()
    await system.worker()
    api.key = await customer_of(_dsn(system))
    return api


async def _accept(api: Api, numbers: range) -> dict[str, str]:
    """Have one picture accepted for each number, a few at a time; returns the ids by number."""
    accepted: dict[str, str] = {}

    async def client(share: range) -> None:
        for number in share:
            made = await api.generate(_MODEL, key=f"key-{number}", generation_prompt=f"picture {number}")
            assert made.status_code == 200, made.text
            accepted[f"picture {number}"] = made.json()["data"]["generation_id"]

    async with asyncio.TaskGroup() as group:
        for first in range(4):
            group.create_task(client(numbers[first::4]))
    return accepted


async def _all_files_are_there(api: Api, ids: set[str]) -> None:
    for generation_id in ids:
        generation = await api.data(f"/v1/content/{generation_id}")
        assert generation["generation_status"] == "succeeded", generation
        for link in generation["generation_output_file"]:
            file = await api.client.get(link)
            assert file.status_code == 200
            assert file.content.startswith(b"\x89PNG")


async def test_a_backup_taken_under_load_is_restored_with_clean_books_and_nothing_that_was_asked_for_lost(
    system: System, another_machine: System, replicate: ReplicateEmulator, tmp_path: Path
) -> None:
    take, bring_back = book("Backup and restore")
    system.environment |= _buying_from(replicate)
    another_machine.environment |= _buying_from(replicate)
    safe = tmp_path / "safe"
    safe.mkdir()
    places = {"/backup/": f"{tmp_path}/", "/safe/": f"{safe}/"}

    api = await _started(system)
    accepted = await _accept(api, range(20))
    await system.all_settled()
    replicate.polls_until_done = _NEVER  # from now on what is bought stays in flight
    accepted |= await _accept(api, range(20, 40))
    environment = {**system.environment, "BABYSEA_DATA_DIR": str(system.data_dir)}
    taking = asyncio.create_task(shell(take, environment, {**places, ".data": str(system.data_dir)}))
    for first in itertools.count(40, 4):
        accepted |= await _accept(api, range(first, first + 4))
        if taking.done():
            break
    await taking
    replicate.polls_until_done = 0
    await system.all_settled()  # what was in flight in the backup has ended meanwhile, and was charged
    system.close()
    await system.nothing_left()

    environment = {**another_machine.environment, "BABYSEA_DATA_DIR": str(another_machine.data_dir)}
    said = await shell(bring_back, environment, {**places, ".data": str(another_machine.data_dir)})
    assert "clean" in said
    assert "missing" not in said.replace("files_missing", "")
    # A worker and nothing else, so that the state of the dump can be read from a database that stands still.
    process, restored = await another_machine.api(api.key)
    known = {row["prompt"]: row for row in await another_machine.query(_KNOWN)}
    bought = Counter(job.prompt for job in replicate.jobs.values())
    before = {prompt for prompt, row in known.items() if row["submitted"]}
    assert set(map("picture {}".format, range(40))) <= known.keys()
    assert {row["status"] for row in known.values()} >= {"succeeded", "processing", "pending"}
    assert all(bought[prompt] == 1 for prompt in accepted)

    await another_machine.worker()
    await another_machine.all_settled()
    assert await books_are_clean(_dsn(another_machine))
    bought = Counter(job.prompt for job in replicate.jobs.values())
    assert {prompt: bought[prompt] for prompt in known if prompt in accepted} == {
        prompt: 1 if prompt in before else 2 for prompt in known if prompt in accepted
    }
    await _all_files_are_there(restored, {row["id"] for row in known.values() if row["prompt"] in accepted})

    # The keys of customers and their Idempotency-Keys are what they were; what the backup does not know is new.
    again = await restored.generate(_MODEL, key="key-3", generation_prompt="picture 3")
    assert again.json()["data"]["generation_id"] == accepted["picture 3"]
    new = await _accept(restored, range(200, 204))
    for generation_id in new.values():
        assert (await restored.finished(generation_id))["generation_status"] == "succeeded"
    assert await books_are_clean(_dsn(another_machine))
    assert process.running


async def test_what_was_in_flight_can_be_given_up_and_files_that_are_gone_are_named(
    system: System, another_machine: System, replicate: ReplicateEmulator, tmp_path: Path
) -> None:
    system.environment |= _buying_from(replicate)
    api = await _started(system)
    await _accept(api, range(2))
    await system.all_settled()
    replicate.polls_until_done = _NEVER
    await _accept(api, range(2, 6))
    backup = tmp_path / "backup"
    process = system.start("backup", str(backup), "--with-master-key")
    assert await process.ended() == 0, process.err
    [gone] = list((backup / "files" / "us").rglob("*.png"))[:1]
    gone.unlink()
    system.close()

    restoring = another_machine.start("restore", str(backup), "--give-up", "--json")
    assert await restoring.ended() == 0, restoring.err
    said = re.sub(r"\s", "", restoring.out)
    assert '"given_up":4' in said
    assert f'"missing":["{gone.relative_to(backup / "files" / "us")}"]' in said
    assert '"ledger":"clean"' in said
    purchases = replicate.purchases
    _, restored = await another_machine.api(api.key)
    await another_machine.worker()
    listed = (await restored.data("/v1/content/list"))["generations"]
    ended = Counter(row["generation_status"] for row in listed)
    assert (ended["failed"], ended["pending"] + ended["processing"]) == (4, 0)
    assert replicate.purchases == purchases
    assert await books_are_clean(_dsn(another_machine))
