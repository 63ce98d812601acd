"""Which addresses of the outside world the server may be sent to: the part that needs no look-up.

Here a URL is judged by its text, and an address by its number. A name may still resolve to a private
address, so whoever connects judges the resolved address again, with `is_public_address`.
"""

import ipaddress
import re
import unicodedata
from urllib.parse import urlsplit

MAX_URL_LENGTH = 2048

# Special-purpose ranges (IANA registries). Spelled out, because what `ipaddress` calls global changed
# between Python releases.
_CLOSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Only 2000::/3 is global unicast; mapped, compatible, NAT64, unique-local, link-local and multicast
# addresses lie outside it. Inside it these carry other addresses or are not routed.
_OPEN_V6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

_CLOSED_NAMES = ("localhost", "local", "localdomain", "internal", "home.arpa")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029]")
_LABEL = re.compile(r"[^\W_]([\w-]{0,61}\w)?|_[\w-]{0,62}")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


def is_public_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is globally reachable unicast, and itself: not one that carries another."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def check_public_url(url: str) -> None:
    """Refuse a URL that is not plainly a public http(s) address.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
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
    _check_host(parts.hostname, bracketed="[" in parts.netloc)


def _check_host(host: str, bracketed: bool) -> None:
    if bracketed:
        _check_address(host)
        return
    # What a resolver would see: full-width digits and ideographic stops are digits and dots.
    name = unicodedata.normalize("NFKC", host).replace("\u3002", ".").casefold().removesuffix(".")
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        _check_address(name)
        return
    labels = name.split(".")
    if len(name) > 253 or not all(len(label) <= 63 and _LABEL.fullmatch(label) for label in labels):
        raise ValueError("the URL's host is not a valid name")
    if any(name == closed or name.endswith("." + closed) for closed in _CLOSED_NAMES):
        raise ValueError("the URL's host is not a public name")
    if len(labels) == 1:
        raise ValueError("the URL's host is not a public name; write it in full")


def _check_address(text: str) -> None:
    try:
        if "%" in text:
            raise ValueError("a zone means this machine's own network")
        address = ipaddress.ip_address(text)
    except ValueError as error:
        # Also octal, hexadecimal and shortened spellings, which some resolvers read as 127.0.0.1.
        raise ValueError("the URL's address is not spelled as plain IPv4 or IPv6") from error
    if not is_public_address(address):
        raise ValueError("the URL's address is not public")
