"""What a backup says of itself: the file that is written last and read first."""

import os
from datetime import datetime
from pathlib import Path

import msgspec

from babysea_server.webhooks.secrets import SecretBox

FORMAT = 1
NAME = "backup.json"
MASTER_KEY = "master.key"


class BackupError(ValueError):
    """A backup that cannot be taken or restored; the message says why and what to do."""


class RegionPart(msgspec.Struct, frozen=True, kw_only=True):
    """One region in a backup."""

    dump: str
    """Name of the dump, in pg_dump's custom format."""
    bytes: int
    sha256: str
    revision: str
    """Revision of the schema."""
    files: int | None
    """Files that were copied; None: they are in a bucket, which is not part of the backup."""
    file_bytes: int | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A whole backup."""

    format: int
    made_at: datetime
    """Before the first dump began: what was committed by then is in it."""
    version: str
    """Of the server that made it."""
    master_key: str
    """The name of the master key in hexadecimal, which tells nothing of the key itself."""
    storage: str | None
    """Where the files are; None: in the backup."""
    regions: dict[str, RegionPart]


def key_name(master_key: bytes) -> str:
    """What a master key is called in backups; the same as in everything that is sealed under it."""
    return SecretBox(master_key).head.hex()


def write(folder: Path, manifest: Manifest) -> None:
    """Make the backup a whole one."""
    draft = folder / f"{NAME}.draft"
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / NAME)


def read(folder: Path) -> Manifest:
    """What a folder holds.

    Raises:
        BackupError: no backup, not a whole one, or one of a newer server.
    """
    try:
        manifest = msgspec.json.decode((folder / NAME).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(f"{folder} holds no backup, or one that was interrupted: no {NAME}") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupError(f"{folder / NAME} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"the backup in {folder} has format {manifest.format}, which a newer server reads")
    return manifest
