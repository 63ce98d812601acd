"""`backup` and `restore`: everything of an installation into a folder, and back into an empty place."""

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from babysea_server.cli.common import EXPECTED, AsJson, Config, DataDir, Value, fail, read_settings, show
from babysea_server.kit.clock import rfc3339

if TYPE_CHECKING:
    from babysea_server.backups.restoring import Restored

_SHOWN_MAX = 20

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the backup is.")]
GiveUp = Annotated[
    bool, typer.Option("--give-up", help="Fail and refund what was in flight, in place of going on with it.")
]


def backup(
    folder: Folder,
    with_master_key: Annotated[
        bool, typer.Option("--with-master-key", help="Put the master key, too, into the backup, in clear.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Back up all regions into an empty folder: databases and files; also beside a running server."""
    # The parts are imported here: with them every other command would take longer.
    from babysea_server.backups.taking import take

    settings = read_settings(data_dir, config, log_level="warning")
    made = _run(take(settings, folder.resolve(), with_master_key=with_master_key))
    rows = [
        {
            "region": region,
            "dump": str(folder / part.dump),
            "dump_bytes": part.bytes,
            "files": part.files,
            "file_bytes": part.file_bytes,
        }
        for region, part in made.regions.items()
    ]
    if as_json:
        show({"made_at": rfc3339(made.made_at), "regions": rows}, as_json=True)
    else:
        show(rows, as_json=False)
    if made.storage is not None:
        sys.stderr.write(f"note: the files are in {made.storage}, which is not part of this backup\n")
    if not with_master_key:
        sys.stderr.write("note: the master key is not part of this backup: keep it elsewhere\n")


def restore(
    folder: Folder,
    give_up: GiveUp = False,
    new_master_key: Annotated[
        bool, typer.Option("--new-master-key", help="Go on without the master key of the backup.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty place and check it; exit code 1 if the books do not add up."""
    from babysea_server.backups.restoring import restore as restore_backup

    settings = read_settings(data_dir, config, log_level="warning")
    _report(
        _run(restore_backup(settings, folder.resolve(), give_up=give_up, new_master_key=new_master_key)),
        as_json=as_json,
    )


def check_restored(
    give_up: GiveUp = False, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Check databases that PostgreSQL's own tools restored, before anything runs on them."""
    from babysea_server.backups.restoring import check

    settings = read_settings(data_dir, config, log_level="warning")
    _report(_run(check(settings, give_up=give_up)), as_json=as_json)


def _report(restored: "Mapping[str, Restored]", *, as_json: bool) -> None:
    if as_json:
        show({region: _whole(found) for region, found in restored.items()}, as_json=True)
    else:
        show([{"region": region, **_counts(found)} for region, found in restored.items()], as_json=False)
        _tell(restored)
    if any(found.differences for found in restored.values()):
        raise typer.Exit(1)


def _run(work: Coroutine[Any, Any, Value]) -> Value:
    from babysea_server.outputs.store import StorageError

    try:
        return asyncio.run(work)
    except (*EXPECTED, StorageError) as error:
        fail(str(error) or type(error).__name__)


def _counts(found: "Restored") -> dict[str, Any]:
    return {
        "generations": found.generations,
        **{f"in_flight_{name}": count for name, count in found.in_flight.items()},
        "given_up": found.given_up,
        "files_missing": len(found.missing),
        "ledger": "clean" if not found.differences else f"{len(found.differences)} differences",
    }


def _whole(found: "Restored") -> dict[str, Any]:
    differences = [
        {
            "promise": each.promise,
            "account": each.account,
            "generation": each.generation,
            "difference": each.difference,
        }
        for each in found.differences
    ]
    return {**_counts(found), "missing": list(found.missing), "differences": differences}


def _tell(restored: "Mapping[str, Restored]") -> None:
    for region, found in restored.items():
        for key in found.missing[:_SHOWN_MAX]:
            sys.stderr.write(f"missing in {region}: {key}\n")
        if len(found.missing) > _SHOWN_MAX:
            sys.stderr.write(f"and {len(found.missing) - _SHOWN_MAX} more; --json lists them all\n")
        if found.differences:
            sys.stderr.write(
                f"the books of {region} do not add up: babysea-server ledger verify --region {region}\n"
            )
