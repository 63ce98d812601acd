"""What the console keeps sealed under the master key, when that key is replaced."""

from uuid import UUID

from babysea_server.accounts import user_store
from babysea_server.db.pool import Database
from babysea_server.webhooks.secrets import SealedSecretError, SecretBox

_STEP = 200


async def reseal_second_steps(db: Database, box: SecretBox, previous: SecretBox | None = None) -> int:
    """Seal the authenticators' secrets of a region under the box's current key; returns how many were not yet.

    One that no key opens stays as it is: its user signs in with a recovery code, or the operator removes it.

    Args:
        box: opens the key that is given up, too.
        previous: opens what was sealed under the key before that.
    """
    resealed, last = 0, UUID(int=0)
    while True:
        async with db.transaction() as connection:
            rows = await user_store.totp_sealed_otherwise(connection, box.head, last, limit=_STEP)
            for user_id, sealed in rows:
                text = _opened(sealed, box, previous)
                if text is not None:
                    await user_store.set_sealed_totp(connection, user_id, box.seal(text))
                    resealed += 1
        if len(rows) < _STEP:
            return resealed
        last = rows[-1][0]


def _opened(sealed: bytes, box: SecretBox, previous: SecretBox | None) -> str | None:
    for each in filter(None, (box, previous)):
        try:
            return each.open(sealed)
        except SealedSecretError:
            continue
    return None
