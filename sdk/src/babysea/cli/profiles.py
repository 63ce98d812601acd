"""Keys that were logged in with: a file each in the configuration folder of the system, readable by its owner only."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from babysea.cli.faults import CommandError

DEFAULT = "default"
DEFAULT_BASE_URL = "http://localhost:8000"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """One login: the key, and the one server that it is sent to."""

    api_key: str = field(repr=False)
    base_url: str
    region: str | None = None
    apikey_prefix: str = ""
    account_id: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """What a client is made of; None is what the client itself decides."""

    api_key: str = field(repr=False)
    base_url: str
    region: str | None


class Profiles:
    """The profiles in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """Where a profile is.

        Raises:
            CommandError: it cannot be the name of one.
        """
        if not _NAME.fullmatch(name):
            raise CommandError(
                f"{name!r} is no name of a profile", "Use letters, digits, - and _; 64 at most."
            )
        return self._folder / f"{name}.json"

    def names(self) -> list[str]:
        """Those there are."""
        return sorted(path.stem for path in self._folder.glob("*.json") if _NAME.fullmatch(path.stem))

    def read(self, name: str) -> Profile | None:
        """The profile, or None.

        Raises:
            CommandError: its file cannot be understood.
        """
        path = self.path(name)
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            known = {key: read[key] for key in Profile.__dataclass_fields__ if key in read}
            if not all(isinstance(value, str | None) for value in known.values()):
                raise TypeError
            return Profile(**known)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise CommandError(f"{path} is not a profile", f"Make it anew: {_login(name)}") from None

    def write(self, name: str, profile: Profile) -> Path:
        """Keep a profile. It is there whole or not at all, and never readable by others."""
        path = self.path(name)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        # mkstemp makes files of mode 0600 from the start.
        handle, part = tempfile.mkstemp(dir=self._folder, prefix=f".{name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(profile), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(part).unlink()
            raise
        return path

    def remove(self, name: str) -> bool:
        """Forget a profile; says whether there was one."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            return False
        return True


def connection(
    environment: Mapping[str, str],
    profiles: Profiles,
    *,
    profile: str | None,
    base_url: str | None,
    region: str | None,
) -> Connection:
    """Where to, and with which key: a profile that was named, else the environment's key, else the usual profile.

    A key is sent only to the server that it was given for.

    Raises:
        CommandError: there is no key, or it is for another server.
    """
    key = environment.get("BABYSEA_API_KEY")
    asked = base_url or (None if profile else environment.get("BABYSEA_BASE_URL"))
    if key and profile is None:
        return Connection(key, asked or DEFAULT_BASE_URL, region)
    name = chosen(environment, profile)
    saved = profiles.read(name)
    if saved is None:
        raise CommandError(
            "you are not logged in" if name == DEFAULT else f"there is no profile {name}",
            f"{_login(name)} asks for a key; BABYSEA_API_KEY gives one without.",
        )
    if asked and asked.rstrip("/") != saved.base_url.rstrip("/"):
        raise CommandError(
            f"the key of profile {name} is for {saved.base_url}, and not sent to {asked}",
            f"Log in there: `babysea login --profile NAME --base-url {asked}`.",
        )
    return Connection(saved.api_key, saved.base_url, region or saved.region)


def chosen(environment: Mapping[str, str], profile: str | None) -> str:
    """The name of the profile that is meant."""
    return profile or environment.get("BABYSEA_PROFILE") or DEFAULT


def _login(name: str) -> str:
    return "`babysea login`" if name == DEFAULT else f"`babysea login --profile {name}`"
