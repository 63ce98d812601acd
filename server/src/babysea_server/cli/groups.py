"""The groups of commands, each imported when one of its commands is asked for.

With all of them, a process that serves would take twice as long to start.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup

#: Module and name of each group, in the order in which they are listed.
GROUPS: Final[Mapping[str, tuple[str, str]]] = {
    "accounts": ("babysea_server.cli.accounts", "accounts_app"),
    "users": ("babysea_server.cli.users", "users_app"),
    "keys": ("babysea_server.cli.keys", "keys_app"),
    "credits": ("babysea_server.cli.ledger", "credits_app"),
    "ledger": ("babysea_server.cli.ledger", "ledger_app"),
    "providers": ("babysea_server.cli.providers", "providers_app"),
    "routing": ("babysea_server.cli.routing", "routing_app"),
    "webhooks": ("babysea_server.cli.webhooks", "webhooks_app"),
    "alerts": ("babysea_server.cli.alerts", "alerts_app"),
    "notices": ("babysea_server.cli.alerts", "notices_app"),
    "domains": ("babysea_server.cli.domains", "domains_app"),
    "secrets": ("babysea_server.cli.secrets", "secrets_app"),
}


class Groups(TyperGroup):
    """A command line that has these groups beside its own commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of its commands, then of the groups."""
        return [*super().list_commands(ctx), *(name for name in GROUPS if name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command or a group by name; None: there is none."""
        if cmd_name not in self.commands and cmd_name in GROUPS:
            module, name = GROUPS[cmd_name]
            # Wrapped as the root wraps its groups: alone, one with a single command would become that command.
            root = typer.Typer(add_completion=False)
            root.add_typer(getattr(import_module(module), name), name=cmd_name)
            group = typer.main.get_group(root)
            self.commands[cmd_name] = group.commands[cmd_name]
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called; all names are known where a wrong one is to be corrected."""
        if self.get_command(ctx, args[0]) is None:
            for name in GROUPS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)
