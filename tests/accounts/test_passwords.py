"""What is kept of a password, and what may be one."""

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from babysea_server.accounts.passwords import Passwords, check_password

PASSWORD = "a lighthouse, a cliff and gulls"


async def test_a_hash_costs_what_rfc_9106_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babysea_server.accounts.passwords.PasswordHasher", PasswordHasher)
    passwords = Passwords()
    kept = await passwords.hash(PASSWORD)
    assert extract_parameters(kept) == RFC_9106_LOW_MEMORY
    assert not passwords.is_outdated(kept)
    assert await passwords.verify(kept, PASSWORD)


async def test_a_hash_of_other_parameters_is_outdated_and_still_good() -> None:
    kept = await Passwords(PasswordHasher(time_cost=1, memory_cost=32, parallelism=1)).hash(PASSWORD)
    passwords = Passwords()
    assert passwords.is_outdated(kept)
    assert await passwords.verify(kept, PASSWORD)


async def test_only_the_same_password_is_right() -> None:
    passwords = Passwords()
    kept = await passwords.hash(PASSWORD)
    assert kept != await passwords.hash(PASSWORD)
    assert PASSWORD not in kept
    assert not await passwords.verify(kept, PASSWORD + " ")
    assert not await passwords.verify(kept, "")
    assert not await passwords.verify(None, PASSWORD)
    assert not await passwords.verify("no hash", PASSWORD)


async def test_another_keyboards_code_points_are_the_same_password() -> None:
    passwords = Passwords()
    kept = await passwords.hash("Stra\u00dfe am Meer \u00e9t\u00e9 \uff11")
    assert await passwords.verify(kept, "Stra\u00dfe am Meer e\u0301te\u0301 1")


@pytest.mark.parametrize("password", ["", "eleven char", "x" * 201, "ab" * 10], ids=len)
def test_what_is_easily_guessed_or_endless_is_none(password: str) -> None:
    with pytest.raises(ValueError, match="password"):
        check_password(password)
    check_password(PASSWORD)
