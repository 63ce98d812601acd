"""When the master key is replaced, the second step goes on working."""

from babysea_server.accounts import user_store
from babysea_server.console.resealing import reseal_second_steps
from babysea_server.db.pool import Database
from babysea_server.webhooks.secrets import SecretBox

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))


async def _user(db: Database, name: str, sealed: bytes) -> user_store.User:
    user = await user_store.insert(db, email=f"{name}@example.com", name=name, password=None)
    assert user is not None
    await user_store.set_sealed_totp(db, user.id, sealed)
    return user


async def test_secrets_are_sealed_anew_once_and_a_lost_one_stays(db: Database) -> None:
    ann = await _user(db, "ann", SecretBox(OLD).seal("ANNS SECRET"))
    lost = await _user(db, "lost", SecretBox(OTHER).seal("LOST"))
    box = SecretBox(NEW, old=OLD)
    assert await reseal_second_steps(db, box) == 1
    assert await reseal_second_steps(db, box) == 0
    found = [await user_store.get(db, user.id) for user in (ann, lost)]
    sealed = [user.totp_secret for user in found if user is not None]
    assert sealed[0] is not None
    assert SecretBox(NEW).open(sealed[0]) == "ANNS SECRET"
    assert sealed[1] == (await db.fetchval("SELECT totp_secret FROM users WHERE name = 'lost'"))
    assert await reseal_second_steps(db, box, SecretBox(OTHER)) == 1
