"""With a bucket the files stay where they are, and a restore says which of them are gone."""

from pathlib import Path

import msgspec
import pytest
from tests.conftest import MakeDeployment
from tests.emulators.s3 import Bucket, environment, serving
from tests.support import make_customer

from babysea_server.backups import manifest
from babysea_server.backups.restoring import restore
from babysea_server.backups.taking import take
from babysea_server.db.embedded import EmbeddedPostgres


async def test_files_in_a_bucket_are_no_part_of_a_backup_and_those_that_are_gone_are_named(
    make_deployment: MakeDeployment,
    postgres: EmbeddedPostgres,
    dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(Bucket(tmp_path / "s3")) as address:
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        deployment = await make_deployment(storage_url="s3://files/base", database_url_us=dsn)
        customer = await make_customer(deployment)
        for _ in range(3):
            assert (await customer.made())["generation_status"] == "succeeded"
        await take(deployment.settings, tmp_path / "backup")
        found = manifest.read(tmp_path / "backup")
        assert (found.storage, found.regions["us"].files) == ("s3://files/base", None)
        assert not (tmp_path / "backup" / "files").exists()

        # One that was deleted since, and one of which only a part is there.
        keys = await deployment.db.fetch("SELECT outputs -> 0 ->> 'key' AS key FROM generations ORDER BY id")
        gone, cut, _ = (row["key"] for row in keys)
        store = deployment.api.regions["us"].store
        await store.delete([gone])
        await store.put(cut, b"half", "image/png")
        other = await postgres.ensure_database(f"{tmp_path.name}_restored")
        elsewhere = msgspec.structs.replace(deployment.settings, database_url_us=other)
        restored = (await restore(elsewhere, tmp_path / "backup"))["us"]
        assert restored.missing == [gone, cut]
        assert restored.differences == []
