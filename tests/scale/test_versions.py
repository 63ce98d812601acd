"""Processes of two versions on one database: how an upgrade goes without stopping anything."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest
from tests.e2e.load import Outcome, insist
from tests.e2e.system import Api
from tests.limits.servers import needs_redis
from tests.postgres15 import needs_postgres15
from tests.scale.machines import Machines, machines
from tests.support import make_account

from babysea_server.db.migrations import newest_revision

#: A dozen starts of processes; where everybody works at once each takes seconds.
pytestmark = [needs_postgres15, needs_redis, pytest.mark.timeout(400)]

_ROOT = Path(__file__).parents[2]
_SOURCE = "server/src"
_STEPS = f"{_SOURCE}/babysea_server/db/migrations"

_PREPARING = f'''
"""The next version writes down why."""
from alembic import op
revision = "9000"
down_revision = "{newest_revision()}"
def upgrade() -> None:
    op.execute("ALTER TABLE generations ADD COLUMN why text, ADD COLUMN how text NOT NULL DEFAULT 'well'")
'''
_FINISHING = '''
"""The next version does not need what it made."""
from alembic import op
revision = "9000"
down_revision = None
def upgrade() -> None:
    op.execute("ALTER TABLE generations DROP COLUMN how")
'''


@pytest.fixture
async def shared() -> AsyncIterator[Machines]:
    """Servers, and no schema."""
    with TemporaryDirectory(prefix="babysea-scale-", ignore_cleanup_errors=True) as folder:
        async with machines(Path(folder), migrated=False) as made:
            yield made


async def _migrated(
    shared: Machines, *options: str, version: Mapping[str, str] | None = None, code: int = 0
) -> str:
    process = shared.machine().start("migrate", *options, **(version or {}))
    assert await process.ended() == code, process.err
    return process.out + process.err


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", _ROOT, *arguments], capture_output=True, text=True, check=True).stdout


def _previous(folder: Path) -> str | None:
    """The code of the newest commit with an older schema, for `PYTHONPATH`; None where history does not go so far."""
    try:
        commits = _git("log", "--format=%H", "--", _STEPS + "/versions").split()
        for commit in ["HEAD", *(f"{commit}^" for commit in commits)]:
            names = _git("ls-tree", "--name-only", commit, f"{_STEPS}/versions/").split()
            newest = max(Path(name).name[1:5] for name in names if Path(name).name.startswith("v0"))
            if newest < newest_revision():
                archive = folder / "old.tar"
                _git("archive", "-o", str(archive), commit, _SOURCE)
                subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
                return str(folder / _SOURCE)
    except (OSError, subprocess.CalledProcessError):
        return None
    return None


async def test_the_previous_version_and_this_one_work_off_one_backlog(
    shared: Machines, tmp_path: Path
) -> None:
    source = await asyncio.to_thread(_previous, tmp_path)
    if source is None:
        pytest.skip("the history of this checkout does not reach back to the previous schema")
    old = {"PYTHONPATH": source}
    await _migrated(shared, version=old)
    hosts = [shared.machine() for _ in range(4)]
    (old_api, one), old_worker = await asyncio.gather(hosts[0].api(**old), hosts[1].worker(**old))
    _, key = await make_account(shared.db)
    one.key = key
    outcome = Outcome()
    async with asyncio.TaskGroup() as group:
        group.create_task(insist(one, [f"old-{number}" for number in range(60)], outcome, clients=4))
        assert "schema is up to date" in await _migrated(shared)
        (_, two), new_worker = await asyncio.gather(hosts[2].api(key), hosts[3].worker())
        group.create_task(insist(two, [f"new-{number}" for number in range(60)], outcome, clients=4))
        group.create_task(insist(one, [f"late-{number}" for number in range(40)], outcome, clients=4))
    workers = await shared.db.fetch("SELECT pid FROM workers WHERE lease_until > now()")
    assert {row["pid"] for row in workers} == {old_worker.pid, new_worker.pid}
    assert [await process.stop() for process in (old_api, old_worker)] == [0, 0]
    await _all_succeeded(shared, two, outcome)
    assert len(outcome.accepted) == 160
    assert "schema is up to date" in await _migrated(shared, "--finish")
    await hosts[2].books_are_clean()


async def test_the_next_version_arrives_while_this_one_works_and_finishes_when_it_is_gone(
    shared: Machines, tmp_path: Path
) -> None:
    next_version = {"PYTHONPATH": await asyncio.to_thread(_next, tmp_path)}
    await _migrated(shared)
    hosts = [shared.machine() for _ in range(4)]
    (api, one), worker = await asyncio.gather(hosts[0].api(), hosts[1].worker())
    _, one.key = await make_account(shared.db)
    outcome = Outcome()

    # Somebody reads a table for long: the step waits for that, and nobody waits for the step.
    reader = await asyncpg.connect(shared.postgres.dsn("babysea_us"))
    await reader.execute("BEGIN; SELECT FROM generations")
    migrating = asyncio.create_task(_migrated(shared, version=next_version))
    await insist(one, [f"during-{number}" for number in range(20)], outcome, clients=4)
    assert await shared.db.fetchval("SELECT version_num FROM alembic_version") == newest_revision()
    await reader.execute("COMMIT")
    await reader.close()
    await migrating
    assert await shared.db.fetchval("SELECT version_num FROM alembic_version") == "9000"

    # Processes of this version go on, and others start: a machine may be lost at any time.
    await worker.kill()
    (_, two), _ = await asyncio.gather(hosts[2].api(one.key, **next_version), hosts[1].worker())
    await asyncio.gather(
        insist(one, [f"this-{number}" for number in range(20)], outcome, clients=4),
        insist(two, [f"next-{number}" for number in range(20)], outcome, clients=4),
    )
    await _all_succeeded(shared, one, outcome)

    # Nothing is taken away from who still works.
    said = await _migrated(shared, "--finish", code=1, version=next_version)
    assert "processes of an older version are connected: babysea-api" in said
    assert await shared.db.fetchval("SELECT count(how) FROM generations") == 60
    await api.stop()
    hosts[1].close()
    await _migrated(shared, "--finish", version=next_version)
    late = hosts[3].start("api", "--port", "0")
    assert await late.ended() == 1
    assert "made by a newer babysea-server" in late.err
    await hosts[3].worker(**next_version)
    await insist(two, ["last"], outcome, clients=1)
    await _all_succeeded(shared, two, outcome)


def _next(folder: Path) -> str:
    """The code of this checkout with a step of each kind more, for `PYTHONPATH`."""
    subprocess.run(["cp", "-R", _ROOT / _SOURCE / "babysea_server", folder], check=True)
    steps = folder / "babysea_server" / "db" / "migrations"
    (steps / "versions" / "v9000_why.py").write_text(_PREPARING)
    (steps / "finishing" / "f9000_how.py").write_text(_FINISHING)
    return str(folder)


async def _all_succeeded(shared: Machines, api: Api, outcome: Outcome) -> None:
    for generation_id in outcome.accepted.values():
        assert (await api.finished(generation_id))["generation_status"] == "succeeded"
    # A provider was asked once for each, whichever version asked.
    twice = "SELECT generation_id FROM attempts GROUP BY generation_id HAVING count(*) > 1"
    assert await shared.db.fetch(twice) == []
