"""The table of error classes, row by row, as design and contract have it."""

import pytest

from babysea_server.errors import ERRORS
from babysea_server.execution.verdict import RULES, FailedAttempt, goes_on, verdict
from babysea_server.providers.base import Failure

# class, the customer's code, is the next provider asked, does the breaker count it
TABLE = [
    (Failure.NEVER_SENT, "BSE4001", True, True),
    (Failure.REFUSED_BUSY, "BSE4004", True, True),
    (Failure.REFUSED_AUTH, "BSE4008", True, True),
    (Failure.REFUSED_FUNDS, "BSE4007", True, True),
    (Failure.REFUSED_INPUT, "BSE4005", True, False),
    (Failure.REFUSED_POLICY, "BSE2006", False, False),
    (Failure.FAILED, "BSE4001", True, True),
    (Failure.TIMED_OUT, "BSE4002", True, True),
    (Failure.OUTCOME_UNKNOWN, "BSE4009", False, True),
    (Failure.BAD_OUTPUT, "BSE4010", True, True),
]


def test_every_class_has_its_row() -> None:
    assert {row[0] for row in TABLE} == set(Failure) == set(RULES)


@pytest.mark.parametrize(("failure", "code", "next_provider", "breaker"), TABLE)
def test_a_class_alone(failure: Failure, code: str, next_provider: bool, breaker: bool) -> None:
    attempt = FailedAttempt("fal", failure)
    assert goes_on(attempt) is next_provider
    assert RULES[failure].trips_breaker is breaker
    assert RULES[failure].error is ERRORS[code]
    ending = verdict([attempt])
    assert ending.code == code
    assert ending.message.endswith("You were not charged.")
    assert "fal" not in ending.message


@pytest.mark.parametrize(("failure", "code", "next_provider", "_breaker"), TABLE)
def test_one_way_of_failing_everywhere_keeps_its_code(
    failure: Failure, code: str, next_provider: bool, _breaker: bool
) -> None:
    chain = [FailedAttempt(name, failure) for name in ("a", "b", "c")]
    assert verdict(chain).code == code


@pytest.mark.parametrize(("failure", "code", "next_provider", "_breaker"), TABLE)
def test_after_another_failure(failure: Failure, code: str, next_provider: bool, _breaker: bool) -> None:
    before = Failure.REFUSED_BUSY if failure is not Failure.REFUSED_BUSY else Failure.FAILED
    ending = verdict([FailedAttempt("a", before), FailedAttempt("b", failure)])
    assert ending.code == ("BSE4006" if next_provider else code)


def test_a_mixed_chain_names_its_providers() -> None:
    chain = [FailedAttempt("fal", Failure.FAILED), FailedAttempt("bfl", Failure.TIMED_OUT)]
    assert verdict(chain).message == "All providers failed (fal, bfl). You were not charged."


def test_different_classes_with_one_code_are_one_way_of_failing() -> None:
    chain = [FailedAttempt("a", Failure.NEVER_SENT), FailedAttempt("b", Failure.FAILED)]
    assert verdict(chain).code == "BSE4001"


def test_a_narrower_code_of_the_provider_is_the_customers() -> None:
    assert verdict([FailedAttempt("a", Failure.REFUSED_INPUT, "BSE2002")]).code == "BSE2002"
    mixed = [FailedAttempt("a", Failure.REFUSED_INPUT, "BSE2002"), FailedAttempt("b", Failure.REFUSED_INPUT)]
    assert verdict(mixed).code == "BSE4006"


def test_our_storage_ends_the_chain_with_its_own_code() -> None:
    stored = FailedAttempt("b", Failure.BAD_OUTPUT, "BSE5003")
    assert not goes_on(stored)
    ending = verdict([FailedAttempt("a", Failure.FAILED), stored])
    assert (ending.code, ending.message) == (
        "BSE5003",
        "The output could not be stored. You were not charged.",
    )


def test_a_chain_nobody_could_be_asked_of() -> None:
    assert verdict([]).code == "BSE4011"
