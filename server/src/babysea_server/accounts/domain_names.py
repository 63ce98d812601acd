"""Which names may be custom domains, and what their owner sets for them: judged by the text, without a look-up."""

import re
from collections.abc import Collection
from typing import NamedTuple

import idna

HOSTNAME_MAX = 253
#: Before the name, for the record that proves whose it is: beside a CNAME no other record may stand.
PROOF_LABEL = "_babysea"

#: Names that lead nowhere on the internet, whatever stands before them.
_CLOSED = ("localhost", "local", "localdomain", "internal", "home.arpa", "arpa", "onion", "invalid")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Record(NamedTuple):
    """One DNS record as its owner sets it."""

    type: str
    name: str
    value: str


def check_hostname(text: str, own: Collection[str] = ()) -> str:
    """A host name as it is kept: in lower case, ASCII (IDNA 2008), without a trailing dot.

    Args:
        text: as somebody typed it.
        own: names of the installation itself; neither they nor what is beneath them can be taken.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    name = text.strip().removesuffix(".")
    if "/" in name or ":" in name or "@" in name:
        raise ValueError("Enter the name alone, without https://, port or path.")
    if not name or len(name) > HOSTNAME_MAX:
        raise ValueError(f"A host name has 1 to {HOSTNAME_MAX} characters.")
    if "*" in name:
        raise ValueError("Enter one name: a * stands for none in particular.")
    try:
        ascii_name = idna.encode(name, uts46=True, std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise ValueError("This is not a host name: letters, digits and hyphens, joined by dots.") from None
    last = ascii_name.rpartition(".")[2]
    if _NUMERIC.fullmatch(last):
        raise ValueError("An IP address cannot be a custom domain.")
    if len(ascii_name) > HOSTNAME_MAX or "." not in ascii_name:
        raise ValueError("Enter the name in full, like api.example.com.")
    if any(_within(ascii_name, closed) for closed in _CLOSED):
        raise ValueError("This name is not one of the public internet.")
    if any(_within(ascii_name, each.lower()) for each in own):
        raise ValueError("This name belongs to the installation itself.")
    return ascii_name


def shown_hostname(hostname: str) -> str:
    """A kept name as people write it; one that cannot be shown so stays as it is."""
    try:
        return idna.decode(hostname)
    except (idna.IDNAError, UnicodeError):
        return hostname


def _within(name: str, zone: str) -> bool:
    return bool(zone) and (name == zone or name.endswith(f".{zone}"))
