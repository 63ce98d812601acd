"""Where webhooks may be sent, judged by the text of the address.

What its name resolves to is judged by whoever connects.
"""

import re
from urllib.parse import urlsplit

from babysea_server.kit.urls import MAX_URL_LENGTH, check_public_url

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029]")


def check_endpoint_url(url: str, *, allow_private: bool = False) -> None:
    """Refuse an address that webhooks are not sent to.

    Args:
        url: as it was given.
        allow_private: development: http, any port, and hosts that are not public are taken, too.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    if allow_private:
        _check_form(url)
        return
    check_public_url(url)
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise ValueError("a webhook's URL starts with https://")
    if parts.port not in (None, 443):
        raise ValueError("a webhook's URL has port 443, which need not be written")


def _check_form(url: str) -> None:
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"a URL has at most {MAX_URL_LENGTH} characters")
    if _FORBIDDEN.search(url):
        raise ValueError("a URL has no spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("this is not a well-formed URL") from error
    if parts.scheme not in ("http", "https"):
        raise ValueError("a URL starts with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("a URL carries no user name or password")
    if port == 0:
        raise ValueError("a URL has no port 0")
    if not parts.hostname:
        raise ValueError("a URL names a host")
