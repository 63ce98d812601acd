"""Where the databases of an installation are, without changing anything in them."""

import asyncio
from contextlib import AsyncExitStack

from babysea_server.backups.manifest import BackupError
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.settings import Settings


async def databases(stack: AsyncExitStack, settings: Settings, *, make: bool = False) -> dict[str, str]:
    """Connection strings by region; the embedded server runs until the stack is closed.

    Args:
        make: also where there is no embedded server yet, and no database in it.

    Raises:
        BackupError: there is no embedded server where one is expected.
        EmbeddedPostgresError, OSError: it does not start.
    """
    found = {region: settings.database_url(region) for region in settings.regions}
    missing = [region for region, url in found.items() if url is None]
    dsns: dict[str, str] = {region: url for region, url in found.items() if url is not None}
    if missing:
        if not make and not (settings.data_path / "postgres").exists():
            raise BackupError(f"there is no database in {settings.data_path}")
        server = EmbeddedPostgres(settings.data_path)
        await asyncio.to_thread(server.attach)
        stack.push_async_callback(asyncio.to_thread, server.detach)
        for region in missing:
            name = f"babysea_{region}"
            dsns[region] = await server.ensure_database(name) if make else server.dsn(name)
    return dsns
