"""`secrets rotate`: everything that is sealed under the master key is sealed under a new one."""

import asyncio
import fcntl
import os
import secrets as random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import typer

from babysea_server.cli.common import (
    EXPECTED,
    AsJson,
    Config,
    DataDir,
    fail,
    read_settings,
    region_database,
    show,
)
from babysea_server.console.resealing import reseal_second_steps
from babysea_server.master_key import OLD_FILE, load_master_key, load_other_master_key
from babysea_server.settings import Settings, SettingsError
from babysea_server.webhooks.endpoints import reseal
from babysea_server.webhooks.secrets import SealedSecretError, SecretBox

secrets_app = typer.Typer(no_args_is_help=True, help="Secrets that are kept sealed under the master key.")

_VARIABLE = "NEW_MASTER_KEY"
_CURRENT, _NEXT, _PREVIOUS = "master.key", "master.key.new", OLD_FILE

_FROM_NOW_ON = """restart every API and worker process now: one that runs on cannot open what was sealed anew
links to files and callbacks of providers that were signed before are accepted as long as {old}
"""


class _Keys(msgspec.Struct, frozen=True):
    """The boxes of a rotation, and where the new key stands if a file is to be replaced."""

    box: SecretBox
    previous: SecretBox | None
    file: Path | None


@secrets_app.callback()
def secrets() -> None:
    """Secrets that are kept sealed under the master key."""


@secrets_app.command("reseal")
def reseal_(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Seal under MASTER_KEY what is still sealed under MASTER_KEY_OTHER, in all regions; beside running servers."""
    settings = read_settings(data_dir, config, log_level="warning")
    try:
        other = load_other_master_key(settings)
        if other is None:
            raise SettingsError("there is no other master key: set MASTER_KEY_OTHER to the one before")
        keys = _Keys(SecretBox(load_master_key(settings), old=other), None, None)
        counts = asyncio.run(_reseal(settings, keys))
    except (*EXPECTED, SealedSecretError) as error:
        fail(str(error) or type(error).__name__)
    show({"secrets_resealed": counts}, as_json=as_json)


@secrets_app.command("rotate")
def rotate(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Seal the secrets of all regions under a new master key; again after an interruption goes on."""
    settings = read_settings(data_dir, config, log_level="warning")
    try:
        with _alone(settings):
            keys = _keys(settings)
            counts = asyncio.run(_reseal(settings, keys))
            if keys.file is not None:
                _replace(settings.data_path)
    except (*EXPECTED, SealedSecretError) as error:
        fail(str(error) or type(error).__name__)
    rows: dict[str, Any] = {"secrets_resealed": counts, "master_key": _whereabouts(settings, keys)}
    show(rows, as_json=as_json)
    file = settings.data_path / _PREVIOUS
    old = "MASTER_KEY_OTHER is the old key" if keys.file is None else f"{file} is there"
    sys.stderr.write(_FROM_NOW_ON.format(old=old))


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Keep other rotations off the key's file: of two new keys one would be lost with all that is sealed under it."""
    if settings.master_key is not None:
        yield
        return
    load_master_key(settings)  # makes the file
    with (settings.data_path / _CURRENT).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError("another rotation of the master key is under way") from None
        yield


def _keys(settings: Settings) -> _Keys:
    """The keys of a rotation; a new one is made where none is given.

    Raises:
        SettingsError: a key is too short, cannot be read or written, or is missing.
    """
    given = os.environ.get(_VARIABLE, "").strip()
    if given and len(given) < 32:
        raise SettingsError(f"{_VARIABLE} needs at least 32 characters")
    current = load_master_key(settings)
    if settings.master_key is not None:
        if not given:
            raise SettingsError(f"the master key is a setting: give the new one in {_VARIABLE}")
        return _Keys(SecretBox(_key(settings, given), old=current), None, None)
    new = _next(settings.data_path / _NEXT, given)
    before = settings.data_path / _PREVIOUS
    previous = SecretBox(_key(settings, before.read_text())) if before.exists() else None
    return _Keys(SecretBox(_key(settings, new), old=current), previous, settings.data_path / _CURRENT)


def _key(settings: Settings, text: str) -> bytes:
    return load_master_key(msgspec.structs.replace(settings, master_key=text.strip()))


def _next(path: Path, given: str) -> str:
    """The text of the new key, from the file of a rotation that was interrupted if there is one."""
    if path.exists():
        text = path.read_text().strip()
        if given and text != given:
            raise SettingsError(f"a rotation to another key was interrupted: finish it without {_VARIABLE}")
        return text
    text = given or random.token_urlsafe(48)
    # Kept before anything is sealed under it, and whole or not at all.
    _write_safely(path, text)
    return text


async def _reseal(settings: Settings, keys: _Keys) -> dict[str, int]:
    counts: dict[str, int] = {}
    for region in settings.regions:
        async with region_database(settings, region) as db:
            counts[region] = await reseal_second_steps(db, keys.box, keys.previous)
            counts[region] += await reseal(db, keys.box, keys.previous)
    return counts


def _replace(folder: Path) -> None:
    """Put the new key in the place of the current one, which is kept beside it; safe against a power cut."""
    _write_safely(folder / _PREVIOUS, (folder / _CURRENT).read_text())
    (folder / _NEXT).replace(folder / _CURRENT)
    _sync(folder)


def _write_safely(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whereabouts(settings: Settings, keys: _Keys) -> str:
    if keys.file is None:
        return f"set MASTER_KEY to what {_VARIABLE} is"
    return f"{keys.file} is new, {settings.data_path / _PREVIOUS} is the old one"
