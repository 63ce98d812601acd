"""What the shell completes: names that are known without asking a server."""

import os
from collections.abc import Iterable

import typer

from babysea.cli import catalog
from babysea.cli.output import Output
from babysea.cli.session import Session, folders


def _session(context: typer.Context) -> Session:
    given = context.params
    return Session(
        Output(as_json=False),
        os.environ,
        folders(),
        given.get("profile"),
        given.get("base_url"),
        given.get("region"),
    )


def any_model(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Identifiers of models."""
    return [name for name in catalog.remembered(_session(ctx)) if name.startswith(incomplete)]


def image_model(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Identifiers of models that make images."""
    return _of_media(ctx, incomplete, "image")


def video_model(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Identifiers of models that make videos."""
    return _of_media(ctx, incomplete, "video")


def profile(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Names of logins."""
    return [name for name in _session(ctx).profiles.names() if name.startswith(incomplete)]


def _of_media(ctx: typer.Context, incomplete: str, media: str) -> list[str]:
    known = catalog.remembered(_session(ctx)).items()
    return [name for name, kind in known if kind == media and name.startswith(incomplete)]
