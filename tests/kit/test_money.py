"""Money: exact in, exact out, and refused when it cannot be exact."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.kit import money
from babysea_server.kit.json import dumps
from babysea_server.kit.money import MAX_MICROS, InvalidAmountError, micros, round_micros, text

amounts = st.integers(-MAX_MICROS, MAX_MICROS)


@given(amounts)
def test_every_amount_survives_the_way_out_and_in_again(amount: int) -> None:
    assert micros(text(amount)) == amount
    assert micros(money.credits(amount)) == amount
    assert micros(json.loads(dumps(money.credits(amount)))) == amount


@given(amounts)
def test_text_is_plain_decimal_without_needless_zeros(amount: int) -> None:
    shown = text(amount)
    assert Decimal(shown) * 1_000_000 == amount
    assert not set(shown) - set("-.0123456789")
    assert "." not in shown or shown[-1] not in ".0"


@given(st.floats())
def test_any_float_is_exact_or_refused(number: float) -> None:
    try:
        amount = micros(number)
    except InvalidAmountError:
        return
    assert math.isfinite(number)
    assert Decimal(repr(number)) * 1_000_000 == amount


@given(st.decimals())
def test_any_decimal_is_exact_or_refused(number: Decimal) -> None:
    try:
        amount = micros(number)
    except InvalidAmountError:
        return
    assert number == Decimal(amount).scaleb(-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.1, 100_000),
        (0.000001, 1),
        ("0.003", 3_000),
        ("-0", 0),
        ("1e3", 1_000_000_000),
        ("1.000000000", 1_000_000),
        (7, 7_000_000),
        (Decimal("999999999.999999"), MAX_MICROS - 1),
        ("1000000000", MAX_MICROS),
    ],
)
def test_amounts_in_every_spelling(given: float | str | Decimal, expected: int) -> None:
    assert micros(given) == expected


@pytest.mark.parametrize("given", ["0.0000001", 1e-7, "0.0000010000000000000000000000000000000000001"])
def test_more_than_six_decimals_are_refused_however_small_the_rest(given: float | str) -> None:
    with pytest.raises(InvalidAmountError, match="more than six decimals"):
        micros(given)


@pytest.mark.parametrize("given", ["1000000000.000001", "-1e10", "1e999999", "1e-999999999", 10**30, 1e300])
def test_amounts_out_of_range_are_refused_at_once(given: float | str) -> None:
    with pytest.raises(InvalidAmountError, match=r"out of range|six decimals"):
        micros(given)


@pytest.mark.parametrize(
    "given", ["", "ten", "1,5", "nan", "sNaN", "inf", "-Infinity", math.nan, math.inf, "0x1"]
)
def test_what_is_no_number_is_refused(given: float | str) -> None:
    with pytest.raises(InvalidAmountError, match="not an amount"):
        micros(given)


def test_credits_are_whole_where_they_can_be() -> None:
    assert money.credits(5_000_000) == 5
    assert isinstance(money.credits(5_000_000), int)
    assert dumps([money.credits(3), money.credits(100_000), money.credits(-500_000), money.credits(0)]) in (
        b"[3e-6,0.1,-0.5,0]",
        b"[0.000003,0.1,-0.5,0]",
    )


@given(amounts)
def test_credits_never_show_more_than_six_decimals(amount: int) -> None:
    shown = Decimal(json.loads(dumps(money.credits(amount)), parse_float=str, parse_int=str))
    assert shown == Decimal(amount).scaleb(-6)


def test_a_price_is_rounded_once_and_halves_go_up() -> None:
    assert round_micros(Decimal("2.5")) == 3
    assert round_micros(Decimal("3.5")) == 4
    assert round_micros(Decimal("2.4999999999")) == 2
    assert round_micros(Decimal(0)) == 0
