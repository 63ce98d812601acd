"""A route of the console: what it is called, what it needs, who answers it."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, Literal, TypeVar

import msgspec
from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console.request import OpenRequest, PageRequest

Method = Literal["GET", "POST"]


class Route(msgspec.Struct, frozen=True):
    """A page of an account, or something that is done there.

    `path` is what follows `/console/{region}/{slug}`; `{name}` in it stands for one segment. There is no route without
    an action, so the roles' table decides over every one of them.
    """

    method: Method
    path: str
    action: Action
    handler: Callable[[PageRequest], Awaitable[Response]]
    upload: bool = False
    """Whether its form may have a file of up to 1 MiB."""


class OpenRoute(msgspec.Struct, frozen=True):
    """A page for people who are not signed in; `path` is what follows `/console`."""

    method: Method
    path: str
    handler: Callable[[OpenRequest], Awaitable[Response]]
    harmless: bool = False
    """Whether its form needs no token, only to come from a page of ours."""


AnyRoute = TypeVar("AnyRoute", Route, OpenRoute)


class RouteTable(Generic[AnyRoute]):
    """Finds the route of a path; literal segments go before named ones."""

    def __init__(self, routes: Iterable[AnyRoute]) -> None:
        self.routes: Sequence[AnyRoute] = tuple(routes)
        self._exact: dict[str, dict[str, AnyRoute]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, AnyRoute]]] = {}
        for route in self.routes:
            if "{" in route.path:
                pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]{1,200})", re.escape(route.path)))
                methods = self._patterns.setdefault(route.path, (pattern, {}))[1]
            else:
                methods = self._exact.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.path}")
            methods[route.method] = route

    def find(self, path: str) -> tuple[Mapping[str, AnyRoute], dict[str, str]] | None:
        """The routes of a path by method, and what its named segments are; None when there is no such path."""
        if exact := self._exact.get(path):
            return exact, {}
        for pattern, methods in self._patterns.values():
            if match := pattern.fullmatch(path):
                return methods, match.groupdict()
        return None
