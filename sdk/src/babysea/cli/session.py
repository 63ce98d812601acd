"""One call of the command line: its shared options, its output, its client, and how it ends when it fails."""

import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer

from babysea import BabySea, BabySeaError
from babysea.cli.faults import FAILED, INTERRUPTED, CommandError, as_record, exit_code, hint_for
from babysea.cli.output import Output
from babysea.cli.profiles import Connection, Profiles, connection

_APP = "babysea"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the system keeps things of programs."""

    config: Path
    cache: Path


def folders() -> Folders:
    """Those of this user."""
    return Folders(
        Path(platformdirs.user_config_dir(_APP, appauthor=False)),
        Path(platformdirs.user_cache_dir(_APP, appauthor=False)),
    )


@dataclass(frozen=True, slots=True)
class Session:
    """What every command is given."""

    output: Output
    environment: Mapping[str, str]
    folders: Folders
    profile: str | None
    base_url: str | None
    region: str | None

    @property
    def profiles(self) -> Profiles:
        """The logins of this user."""
        return Profiles(self.folders.config / "profiles")

    def connection(self) -> Connection:
        """The server that this call is for, and the key.

        Raises:
            CommandError: it is not known which.
        """
        return connection(
            self.environment,
            self.profiles,
            profile=self.profile,
            base_url=self.base_url,
            region=self.region,
        )

    def client(self) -> BabySea:
        """A client of that server.

        Raises:
            CommandError, ConfigurationError: it is not known which, or makes no sense.
        """
        found = self.connection()
        return BabySea(found.api_key, base_url=found.base_url, region=found.region)


_SHARED = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON for programs.")],
    "profile": Annotated[
        str | None, typer.Option("--profile", help="Login to use; else BABYSEA_PROFILE, else `default`.")
    ],
    "base_url": Annotated[
        str | None, typer.Option("--base-url", help="Address of the server; else BABYSEA_BASE_URL.")
    ],
    "region": Annotated[str | None, typer.Option("--region", help="us, eu or jp.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")],
}

_SWITCHES = ("as_json", "debug")


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], None]:
    """Make a function, whose first argument is the session, a command with the shared options."""

    def register(function: Callable[..., None]) -> None:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter(
                option,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=kind,
                default=False if option in _SWITCHES else None,
            )
            for option, kind in _SHARED.items()
        ]

        def call(**given: Any) -> None:
            options = {option: given.pop(option) for option in _SHARED}
            debug, as_json = options.pop("debug"), options.pop("as_json")
            session = Session(Output(as_json=as_json), os.environ, folders(), **options)
            code = _reported(session.output, debug, lambda: function(session, **given))
            if code:
                raise typer.Exit(code)

        # Typer reads the options off these.
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + shared
        call.__doc__ = function.__doc__
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        call.__dict__["__signature__"] = inspect.Signature(parameters)
        app.command(name or function.__name__)(call)

    return register


def _reported(output: Output, debug: bool, work: Callable[[], None]) -> int:
    """Do the work; what goes wrong is one line, an exit code, and for programs a record."""
    try:
        work()
    except (typer.Exit, typer.TyperException, BrokenPipeError):
        raise
    except (KeyboardInterrupt, typer.Abort):  # which a question raises
        output.error("interrupted")
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return report(output, error)
    return 0


def report(output: Output, error: Exception) -> int:
    """Tell people and programs of an error; returns the exit code."""
    if output.as_json:
        output.document({"error": as_record(error)})
    match error:
        case CommandError():
            output.error(error.message, error.hint)
            return error.code
        case BabySeaError():
            output.error(str(error), hint_for(error))
            return exit_code(error)
        case OSError():
            output.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        case _:
            output.error(f"{type(error).__name__}: {error}", "This should not happen: --debug shows where.")
    return FAILED
