"""Signed links: whoever holds one may read one file until it expires, and nothing else."""

import base64
import hashlib
import hmac
import re
from datetime import datetime

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from babysea_server.kit.clock import Clock
from babysea_server.outputs.keys import check_key

#: Expiries lie on a grid of this many seconds, so that reads in a row hand out one and the same URL.
QUANTUM_S = 300

_PURPOSE = b"babysea/files/links/v1"
_EXPIRES = re.compile(r"[1-9][0-9]{0,14}")


class BadLinkError(Exception):
    """A link that this server did not sign for this region, key and expiry."""


class ExpiredLinkError(BadLinkError):
    """A link that this server signed and whose time is over."""


class LinkSigner:
    """Makes and checks `<origin>/files/<key>?expires=<unix seconds>&signature=<base64url>`.

    The signature is HMAC-SHA256 over region, key and expiry, under a key derived from the server's master
    secret for this purpose alone; the origin is left out, so that a proxy or a second host name may stand
    before the server. All processes that share the secret accept each other's links.

    Args:
        secret: the master secret, at least 32 bytes.
        clock: tells the time.
        lifetime_s: seconds that a link holds at least; up to five minutes more through rounding.
        other: another master secret, whose links are accepted, too, while the secret is changed.

    Raises:
        ValueError: a secret is too short or the lifetime not between a minute and a week.
    """

    def __init__(
        self, secret: bytes, clock: Clock, lifetime_s: int = 3600, *, other: bytes | None = None
    ) -> None:
        if min(len(secret), len(secret if other is None else other)) < 32:
            raise ValueError("the secret for links has at least 32 bytes")
        if not 60 <= lifetime_s <= 7 * 86_400:
            raise ValueError("the lifetime of links is 60 to 604800 seconds")
        self._key = _derived(secret)
        self._accepted = (self._key, *([] if other is None else [_derived(other)]))
        self._clock = clock
        self._lifetime_s = lifetime_s

    def sign(self, origin: str, region: str, key: str) -> str:
        """The link to one object of one region.

        Args:
            origin: scheme and authority, e.g. `https://api.us.example.com`.
            region: the region whose store holds the object.
            key: the object's key.

        Raises:
            InvalidKeyError: not a key.
        """
        return self.sign_until(origin, region, key, self._clock.now())

    def sign_until(self, origin: str, region: str, key: str, moment: datetime) -> str:
        """The link to one object that has its usual lifetime still before it at a moment.

        The same arguments give the same link, whenever it is made. See `sign` for the others.

        Raises:
            InvalidKeyError: not a key.
        """
        check_key(key)
        earliest = int(moment.timestamp()) + self._lifetime_s
        expires = -(-earliest // QUANTUM_S) * QUANTUM_S
        signature = _signature(self._key, region, key, expires)
        return f"{origin}/files/{key}?expires={expires}&signature={signature}"

    def verify(self, region: str, key: str, expires: str, signature: str) -> int:
        """Seconds that a link still holds, at least 1, from its two parameters as they were received.

        Raises:
            BadLinkError: not signed by us for this region, key and expiry.
            ExpiredLinkError: signed by us, and over.
        """
        if not _EXPIRES.fullmatch(expires):
            raise BadLinkError("the link's expiry is not a time")
        given = signature.encode("utf-8", "replace")
        if not any(
            hmac.compare_digest(_signature(accepted, region, key, int(expires)).encode(), given)
            for accepted in self._accepted
        ):
            raise BadLinkError("the link's signature does not match")
        # Rounded so that a link is never used in the second in which it is called over.
        left = int(int(expires) - self._clock.now().timestamp())
        if left < 1:
            raise ExpiredLinkError("the link has expired")
        return left


def _derived(secret: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret)


def _signature(secret: bytes, region: str, key: str, expires: int) -> str:
    # No part can hold a line break: the region comes from settings, the key from a closed alphabet.
    message = f"{region}\n{key}\n{expires}".encode()
    digest = hmac.new(secret, message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
