"""The security headers of every answer: what a browser may do with it, defined in this one place."""

from starlette.types import Message, Scope, Send

from babysea_server.contract.cors import Headers

# Answers are data, so a browser that is led to one may load, frame and embed nothing. An application that
# needs something else (a page its styles, a file its readers) sends that header itself, and it stands.
_ALWAYS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# Two years, as the preload lists ask; without subdomains, which may not be ours to decide about.
_OVER_TLS: Headers = [*_ALWAYS, (b"strict-transport-security", b"max-age=63072000")]


def security_headers(scheme: str) -> Headers:
    """The headers of an answer over this scheme, the one the client used."""
    return _OVER_TLS if scheme == "https" else _ALWAYS


def secured(scope: Scope, send: Send) -> Send:
    """A `send` that adds to an answer the security headers it does not have.

    The scheme is the one the client used, as far as the trusted proxies tell.
    """
    headers = security_headers(scope.get("scheme", ""))

    async def send_secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *[header for header in headers if header[0] not in present],
            ]
        await send(message)

    return send_secured
