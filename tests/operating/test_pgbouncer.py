"""Behind PgBouncer that pools by session, with the settings that the operator's book names."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from tests.conftest import MakeDeployment
from tests.docs.pages import blocks, headings, page
from tests.limits.servers import free_port
from tests.support import eventually, make_customer

from babysea_server.keys.service import revoke

_PROGRAM = shutil.which("pgbouncer")

pytestmark = pytest.mark.skipif(_PROGRAM is None, reason="PgBouncer is not installed (Debian: pgbouncer)")


@contextmanager
def _pooled(dsn: str) -> Iterator[str]:
    """A connection string to the same database through a pooler; as the server's own user where that is needed."""
    [socket] = parse_qs(urlsplit(dsn).query)["host"]
    owner = Path(socket).stat().st_uid
    written = blocks(headings(page("docs/operating.md"))["A pooler in between"], "ini")[0]
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="babysea-pgbouncer-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={socket} port=5432 user=postgres\n[pgbouncer]\n{written}"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        )
        (folder / "pgbouncer.ini").chmod(0o644)
        assert _PROGRAM is not None
        process = subprocess.Popen(
            [_PROGRAM, "-q", folder / "pgbouncer.ini"],
            user=pwd.getpwuid(owner).pw_name if os.geteuid() == 0 else None,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}{urlsplit(dsn).path}"
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture
async def pooled(dsn: str) -> AsyncIterator[str]:
    """The test's database through a pooler, which goes after everything that uses it."""
    with _pooled(dsn) as way:

        async def answers() -> bool:
            try:
                connection = await asyncpg.connect(way, timeout=10)
            except (OSError, asyncpg.PostgresError):
                return False
            await connection.close()
            return True

        await eventually(answers)
        yield way


async def test_everything_works_and_a_revoked_key_stops_at_once(
    pooled: str, make_deployment: MakeDeployment
) -> None:
    deployment = await make_deployment(way=pooled)
    customer = await make_customer(deployment)
    made = await customer.made()
    assert made["generation_status"] == "succeeded"
    await revoke(deployment.db, None, await deployment.db.fetchval("SELECT id FROM api_keys"))

    async def refused() -> bool:
        return (await customer.request("GET", "/v1/status")).status_code == 401

    await eventually(refused)
    assert await deployment.differences() == []
