"""Cross-origin access: any page may call with a key of its own, none with ambient credentials.

`Access-Control-Allow-Credentials` is never sent, so a browser attaches no cookie and `*` is safe.
"""

Headers = list[tuple[bytes, bytes]]

_METHODS = b"GET, POST, DELETE"
_REQUEST_HEADERS = (
    b"Authorization, Content-Type, Idempotency-Key, "
    b"X-BabySea-SDK-Name, X-BabySea-SDK-Version, X-BabySea-SDK-Runtime, X-BabySea-SDK-Runtime-Version"
)
_EXPOSED_HEADERS = (
    b"X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, "
    b"Idempotency-Replayed, Server-Timing"
)
_MAX_AGE_SECONDS = b"86400"


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks for permission; a plain `OPTIONS` is not a preflight."""
    if method != "OPTIONS":
        return False
    names = {name for name, _ in headers}
    return b"origin" in names and b"access-control-request-method" in names


def preflight_headers() -> Headers:
    """The headers that grant what the published operations need."""
    return [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _REQUEST_HEADERS),
        (b"access-control-max-age", _MAX_AGE_SECONDS),
    ]


def answer_headers(request_headers: Headers) -> Headers:
    """The headers of a real answer; none when the request comes from no page."""
    if all(name != b"origin" for name, _ in request_headers):
        return []
    return [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-expose-headers", _EXPOSED_HEADERS),
    ]
