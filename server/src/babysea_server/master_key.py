"""The master key: the one secret from which keys for signing and encryption are derived."""

import hashlib
import os
import secrets
from contextlib import suppress

from babysea_server.settings import Settings, SettingsError

_FILE = "master.key"
_LENGTH_MIN = 32


def load_master_key(settings: Settings) -> bytes:
    """32 bytes from `MASTER_KEY`, else from `<data_dir>/master.key`, which is made (0600) when missing.

    Every process of a deployment needs the same one.

    Raises:
        SettingsError: too short, or the file cannot be used.
    """
    text = settings.master_key
    if text is None:
        try:
            text = _kept(settings)
        except OSError as error:
            raise SettingsError(f"the master key in {settings.data_path}: {error}") from error
    if len(text) < _LENGTH_MIN:
        raise SettingsError(f"MASTER_KEY needs at least {_LENGTH_MIN} characters")
    return hashlib.sha256(text.encode()).digest()


def _kept(settings: Settings) -> str:
    path = settings.data_path / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # somebody was faster: theirs is the key
        fresh = path.with_suffix(f".{os.getpid()}.new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # appears whole or not at all
        finally:
            fresh.unlink()
    return path.read_text().strip()
