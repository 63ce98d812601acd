"""The master key: the one secret from which keys for signing and encryption are derived."""

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from babysea_server.settings import Settings, SettingsError

_log = structlog.get_logger(__name__)

_FILE = "master.key"
#: The one before, which is accepted as long as it is there.
OLD_FILE = f"{_FILE}.old"
_LENGTH_MIN = 32


def load_master_key(settings: Settings) -> bytes:
    """32 bytes from `MASTER_KEY`, else from `<data_dir>/master.key`, which is made (0600) when missing.

    Every process of a deployment needs the same one.

    Raises:
        SettingsError: too short, or the file cannot be used.
    """
    if settings.master_key is not None:
        return _derive(settings.master_key.strip(), "MASTER_KEY")
    path = settings.data_path / _FILE
    try:
        if not path.exists():
            _make(path)
            if any(map(settings.database_url, settings.regions)):
                _log.warning(
                    "master_key_made",
                    path=str(path),
                    meaning="every process of these databases needs the same; on several machines set MASTER_KEY",
                )
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the master key cannot be read from {path}: {error}") from error
    return _derive(text, f"the master key in {path}")


def load_other_master_key(settings: Settings) -> bytes | None:
    """The key that is accepted beside the master key while that is changed, or None.

    It is `MASTER_KEY_OTHER`; where the master key is a file, also `<data_dir>/master.key.old`, which a rotation leaves.

    Raises:
        SettingsError: too short, or the file cannot be used.
    """
    if settings.master_key_other is not None:
        return _derive(settings.master_key_other.strip(), "MASTER_KEY_OTHER")
    path = settings.data_path / OLD_FILE
    if settings.master_key is not None or not path.exists():
        return None
    try:
        return _derive(path.read_text().strip(), f"the old master key in {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the old master key cannot be read from {path}: {error}") from error


def _derive(text: str, origin: str) -> bytes:
    if len(text) < _LENGTH_MIN:
        raise SettingsError(f"{origin} needs at least {_LENGTH_MIN} characters")
    return hashlib.sha256(text.encode()).digest()


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own (and 0600): process ids are the same in every container that shares the folder.
    handle, fresh = tempfile.mkstemp(prefix=f"{_FILE}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody was faster: theirs is the key
            path.hardlink_to(fresh)  # appears whole or not at all
    finally:
        Path(fresh).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # what is signed or encrypted from now on needs this key after a power cut, too
    finally:
        os.close(folder)
