"""The second step of signing in: codes of an authenticator (RFC 6238), and codes for the day it is lost."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime

import pyotp

ISSUER = "BabySea"
PERIOD_S = 30
#: Steps before and after the present one that are accepted: clocks differ, and people type slowly.
_DRIFT = 1
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10


def new_secret() -> str:
    """A secret of 160 bits, in the base32 that authenticators take."""
    return pyotp.random_base32()


def provisioning_uri(secret: str, email: str) -> str:
    """The `otpauth://` address that an authenticator reads from a picture."""
    return pyotp.TOTP(secret, interval=PERIOD_S).provisioning_uri(name=email, issuer_name=ISSUER)


def looks_like_totp(code: str) -> bool:
    """Whether it has six digits, as an authenticator's codes have and recovery codes have not."""
    digits = "".join(code.split())
    return len(digits) == 6 and digits.isascii() and digits.isdecimal()


def matching_step(secret: str, code: str, now: datetime, *, after: int) -> int | None:
    """The step of time that a code belongs to, or None.

    Args:
        after: the last step that opened: neither it nor an earlier one opens again.
    """
    if not looks_like_totp(code):
        return None
    digits = "".join(code.split())
    totp = pyotp.TOTP(secret, interval=PERIOD_S)
    present = int(now.timestamp()) // PERIOD_S
    found = None
    for step in range(present - _DRIFT, present + _DRIFT + 1):
        if secrets.compare_digest(totp.generate_otp(step), digits) and step > after:
            found = step
    return found


def new_recovery_codes() -> Sequence[str]:
    """Ten codes of 80 random bits, in groups that can be copied by hand."""
    return [
        _grouped(base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower())
        for _ in range(RECOVERY_CODES)
    ]


def recovery_hash(code: str) -> bytes:
    """What is kept of a recovery code, however it is written."""
    plain = "".join(code.replace("-", " ").split()).lower()
    return hashlib.sha256(plain.encode("utf-8", "replace")).digest()


def _grouped(code: str) -> str:
    return "-".join(code[start : start + 4] for start in range(0, len(code), 4))
