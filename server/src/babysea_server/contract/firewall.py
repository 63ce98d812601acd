"""The firewall: what is not one of the published operations goes no further.

It is compiled from the OpenAPI documents that the server publishes, not from the table they are made
of, so what is documented is what is admitted. Nothing is written and no key is looked up here.
Source of the rules: the published contract, section 1.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from starlette.types import Scope

from babysea_server.contract.hosts import CustomHost
from babysea_server.contract.parameters import (
    ParameterRule,
    compile_parameter,
    read_path_value,
    read_query,
)
from babysea_server.contract.rejection import rejection, shown

MAX_PATH_BYTES = 2048

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
#: A path of unreserved characters needs no further look, except for dot segments.
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9._~-]+)+")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")
_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
_SINGLE_HEADERS = frozenset(
    ("host", "authorization", "content-type", "content-length", "transfer-encoding", *_OVERRIDES)
)
_PORT = re.compile(r"[0-9]{0,5}")
_MAX_LISTED = 50
_PATHS_REMEMBERED = 4096


class Admitted(Struct, frozen=True):
    """A request that is one of the published operations.

    `path` and `query` hold decoded, typed values (UUIDs in lower case, documented defaults filled in);
    `headers` holds values by lower-case name, repeated ones joined by a comma.
    """

    region: str
    operation_id: str
    scope: str
    takes_body: bool
    host: str
    path: Mapping[str, str]
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    account_id: UUID | None = None
    """Whose custom domain the host is: only keys of this account are known there."""


class _Operation(msgspec.Struct, frozen=True):
    id: str
    scope: str
    media_types: tuple[str, ...]
    """What a body may be; empty when the operation takes none."""
    query: Mapping[str, ParameterRule]
    defaults: Mapping[str, Any]


class _Site(msgspec.Struct, frozen=True):
    """One path of a document: where its literals and parameters stand, and its methods."""

    literals: tuple[tuple[int, str], ...]
    parameters: tuple[tuple[int, ParameterRule], ...]
    methods: Mapping[str, _Operation]


class _Region:
    """The compiled document of one region."""

    def __init__(self, name: str, document: Mapping[str, Any]) -> None:
        self.name = name
        self.paths = list(document["paths"])[:_MAX_LISTED]
        self._literal: dict[str, _Site] = {}
        self._templated: dict[tuple[int, str], list[_Site]] = {}
        self._found: dict[bytes, tuple[_Site, dict[str, str]]] = {}
        """Paths that were admitted lately: the same models and generations are asked for again and again."""
        for path, item in document["paths"].items():
            site = _compile_site(path, item)
            if not site.parameters:
                self._literal[path] = site
                continue
            segments = path.split("/")
            if "{" in segments[2]:
                raise ValueError(f"{path}: the firewall needs a literal second segment")
            self._templated.setdefault((len(segments), segments[2]), []).append(site)

    def find(self, raw: bytes) -> tuple[_Site, dict[str, str]]:
        """The site of a raw path and the values of its parameters. Raises BSE1010."""
        found = self._found.get(raw)
        if found is None:
            found = self._find(raw)
            if len(self._found) >= _PATHS_REMEMBERED:
                self._found.clear()
            self._found[raw] = found
        return found

    def _find(self, raw: bytes) -> tuple[_Site, dict[str, str]]:
        path = raw.decode("latin-1")
        site = self._literal.get(path)
        if site is not None:
            return site, {}
        if len(raw) > MAX_PATH_BYTES or _PLAIN_PATH.fullmatch(raw) is None:
            path = self._decoded(raw)
            site = self._literal.get(path)
            if site is not None:
                return site, {}
        segments = path.split("/")
        if "." in segments or ".." in segments:
            raise self._malformed("The path holds a dot segment.")
        if len(segments) > 2:
            for site in self._templated.get((len(segments), segments[2]), ()):
                if all(segments[index] == literal for index, literal in site.literals):
                    return site, {
                        rule.name: read_path_value(rule, segments[index]) for index, rule in site.parameters
                    }
        raise rejection(
            "unknown_path", "path", f"{shown(path)} is not a path of the published API.", self.paths
        )

    def _decoded(self, raw: bytes) -> str:
        """The path with escapes of unreserved characters undone, which mean the same (RFC 3986, 6.2.2.2)."""
        if len(raw) > MAX_PATH_BYTES:
            raise self._malformed(f"The path is longer than {MAX_PATH_BYTES} bytes.")

        def unescape(match: re.Match[bytes]) -> bytes:
            digits = match[1]
            if digits is None:
                raise self._malformed("The path holds a percent sign without two hexadecimal digits.")
            byte = int(digits, 16)
            if byte in b"/\\":
                raise self._malformed("The path holds an encoded slash; slashes are written plainly.")
            if byte < 0x20 or byte == 0x7F:
                raise self._malformed("The path holds an encoded control byte.")
            if byte not in _UNRESERVED:
                raise self._malformed("The path holds an escape that no published path needs.")
            return bytes((byte,))

        plain = _ESCAPE.sub(unescape, raw)
        if any(byte < 0x20 or byte >= 0x7F for byte in plain):
            raise self._malformed("The path holds a control byte or one beyond ASCII.")
        if b"\\" in plain:
            raise self._malformed("The path holds a backslash.")
        if b"//" in plain:
            raise self._malformed("The path holds an empty segment.")
        if len(plain) > 1 and plain.endswith(b"/"):
            raise self._malformed("The path ends with a slash.")
        return plain.decode("ascii")

    def _malformed(self, message: str) -> Exception:
        return rejection("malformed_path", "path", message, self.paths)


class Firewall:
    """Admits the operations of the published documents and rejects everything else.

    Args:
        documents: the OpenAPI document of each region.
        hosts: the region of each host name of the installation, in lower case and without port.
        custom_host: what another name stands for, if it is an active custom domain.
    """

    def __init__(
        self,
        documents: Mapping[str, Mapping[str, Any]],
        hosts: Mapping[str, str],
        custom_host: Callable[[str], CustomHost | None] = lambda _name: None,
    ) -> None:
        compiled = {name: _Region(name, document) for name, document in documents.items()}
        self._hosts = {host: compiled[region] for host, region in hosts.items()}
        self._regions = compiled
        self._custom_host = custom_host
        self._host_names = list(hosts)[:_MAX_LISTED]

    def match(self, scope: Scope) -> Admitted:
        """The operation that an ASGI HTTP scope asks for.

        Raises:
            ApiError: BSE1010 with `details` of `rule`, `location` and `allowed`.
        """
        headers = _read_headers(scope)
        host = headers.get("host", "")
        region, account_id = self._region(host_name(host))
        if region is None:
            message = (
                f"{shown(host)} is not a host of this API." if host else "The request has no Host header."
            )
            raise rejection("unknown_host", "header.host", message, self._host_names)
        raw_path = scope.get("raw_path")
        site, path = region.find(scope["path"].encode("utf-8", "replace") if raw_path is None else raw_path)
        operation = site.methods.get(scope["method"])
        if operation is None:
            raise rejection(
                "method_not_allowed",
                "method",
                f"The path has no method {shown(scope['method'])}; it has {', '.join(site.methods)}.",
                list(site.methods),
            )
        query = read_query(scope.get("query_string", b""), operation.query, operation.defaults)
        if operation.media_types:
            _check_media_type(headers.get("content-type", ""), operation.media_types)
        elif "transfer-encoding" in headers or headers.get("content-length", "0").strip("0"):
            raise rejection("unexpected_body", "body", "The operation takes no body.", {"max_bytes": 0})
        return Admitted(
            region.name,
            operation.id,
            operation.scope,
            bool(operation.media_types),
            host,
            path,
            query,
            headers,
            account_id,
        )

    def _region(self, name: str) -> tuple[_Region | None, UUID | None]:
        """The region of a host name, and whose it is if it is a custom domain."""
        region = self._hosts.get(name)
        if region is not None:
            return region, None
        custom = self._custom_host(name)
        return (None, None) if custom is None else (self._regions.get(custom.region), custom.account_id)


def host_name(host: str) -> str:
    """A Host header's name in lower case, without port and trailing dot; empty when it is malformed."""
    name, port = host.lower(), ""
    if not name.endswith("]"):
        head, colon, tail = name.rpartition(":")
        if colon:
            name, port = head, tail
    if _PORT.fullmatch(port) is None:
        return ""
    return name.removesuffix(".")


def _read_headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            if name in _SINGLE_HEADERS:
                raise rejection(
                    "repeated_header",
                    f"header.{name}",
                    f"The header {name} is given more than once.",
                    {"occurrences": 1},
                )
            value = f"{headers[name]}, {value}"
        headers[name] = value
    for name in _OVERRIDES:
        if name in headers:
            raise rejection(
                "method_override", f"header.{name}", f"The header {name} is not honoured; leave it out.", []
            )
    length = headers.get("content-length")
    if length is not None:
        if "transfer-encoding" in headers:
            raise rejection(
                "ambiguous_framing",
                "header.transfer-encoding",
                "Content-Length and Transfer-Encoding exclude each other.",
                ["content-length", "transfer-encoding"],
            )
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise rejection(
                "ambiguous_framing",
                "header.content-length",
                "Content-Length is not a number of bytes.",
                {"type": "integer", "minimum": 0},
            )
    return headers


def _check_media_type(value: str, allowed: tuple[str, ...]) -> None:
    if value in allowed:
        return
    kind, *rest = (part.strip().lower() for part in value.split(";"))
    if kind in allowed and (
        not rest or (len(rest) == 1 and rest[0].replace('"', "").replace(" ", "") == "charset=utf-8")
    ):
        return
    raise rejection(
        "content_type",
        "header.content-type",
        f"The body must be {' or '.join(allowed)}, at most with charset=utf-8; it is {shown(value)}.",
        list(allowed),
    )


def _compile_site(path: str, item: Mapping[str, Any]) -> _Site:
    operations = {method.upper(): item[method] for method in _METHODS if method in item}
    rules: dict[str, ParameterRule] = {}
    for operation in operations.values():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                rules[parameter["name"]] = compile_parameter(parameter)
    literals: list[tuple[int, str]] = []
    parameters: list[tuple[int, ParameterRule]] = []
    for index, segment in enumerate(path.split("/")):
        if segment.startswith("{"):
            parameters.append((index, rules[segment[1:-1]]))
        else:
            literals.append((index, segment))
    return _Site(
        tuple(literals),
        tuple(parameters),
        {method: _compile_operation(operation) for method, operation in operations.items()},
    )


def _compile_operation(operation: Mapping[str, Any]) -> _Operation:
    query = [parameter for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    return _Operation(
        id=operation["operationId"],
        scope=operation["x-babysea-scope"],
        media_types=tuple(operation.get("requestBody", {}).get("content", ())),
        query={parameter["name"]: compile_parameter(parameter) for parameter in query},
        defaults={
            parameter["name"]: parameter["schema"]["default"]
            for parameter in query
            if "default" in parameter["schema"]
        },
    )
