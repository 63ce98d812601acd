"""Endpoints' signing secrets: made here, and sealed under the master key wherever they are kept."""

import base64
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PURPOSE = b"babysea/webhooks/secrets/v1"
_ID_PURPOSE = b"babysea/webhooks/secrets/v1/key-id"

_PREFIX = "whsec_"
_SECRET_BYTES = 24

_VERSION = b"\x01"
_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD_BYTES = len(_VERSION) + _ID_BYTES
_SHORTEST = _HEAD_BYTES + _NONCE_BYTES + 16


class SealedSecretError(Exception):
    """A sealed secret that none of the given keys opens: it was changed, or belongs to another master key."""


class SecretBox:
    """Seals short texts with AES-256-GCM under a key derived from the master key for this purpose alone.

    A sealed text is a version byte (1), four bytes that name the key, a random nonce of 96 bits, and the
    ciphertext with its tag; version and name are authenticated. All processes with one master key open each
    other's.

    Args:
        master_key: at least 32 bytes; seals, and opens.
        old: the master key before or the next one, which only opens, while the key is changed.

    Raises:
        ValueError: a key is too short.
    """

    def __init__(self, master_key: bytes, old: bytes | None = None) -> None:
        self._id, self._cipher = _derive(master_key)
        # The current key last, so that it wins where both are the same.
        self._by_id = dict([*([_derive(old)] if old is not None else []), (self._id, self._cipher)])

    def seal(self, text: str) -> bytes:
        """The text, unreadable without the key and different each time; 33 bytes longer than its UTF-8."""
        head = _VERSION + self._id
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + self._cipher.encrypt(nonce, text.encode(), head)

    def open(self, sealed: bytes) -> str:
        """The text that was sealed.

        Raises:
            SealedSecretError: changed, cut short, or sealed under a key that this box does not have.
        """
        cipher = self._by_id.get(sealed[1:_HEAD_BYTES])
        if cipher is None or len(sealed) < _SHORTEST or sealed[:1] != _VERSION:
            raise SealedSecretError("a webhook secret is sealed under another master key")
        head, nonce = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES]
        try:
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES + _NONCE_BYTES :], head).decode()
        except InvalidTag:
            raise SealedSecretError("a sealed webhook secret was changed") from None

    @property
    def head(self) -> bytes:
        """How everything begins that this box seals now; what begins otherwise is to be sealed anew."""
        return _VERSION + self._id


def new_secret() -> str:
    """A signing secret: `whsec_` and 32 characters, the base64 of 24 random bytes, as Standard Webhooks has it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _derive(master_key: bytes) -> tuple[bytes, AESGCM]:
    if len(master_key) < 32:
        raise ValueError("the master key has at least 32 bytes")
    # The name of the key is derived, too: it tells nothing of the key itself.
    name = HKDF(algorithm=SHA256(), length=_ID_BYTES, salt=None, info=_ID_PURPOSE).derive(master_key)
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(master_key)
    return name, AESGCM(key)
