"""Money: 1 credit = 1 USD = 1,000,000 micro-credits, always an `int` inside the server.

Binary floating point never touches an amount: prices enter as decimal text (or as JSON numbers read
through their shortest decimal form) and leave as JSON numbers with at most six decimals.
"""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

MICROS_PER_CREDIT = 1_000_000
#: Larger than any amount that means something, small enough that sums never leave a 64-bit column.
MAX_MICROS = 10**15
_CREDITS_MAX = MAX_MICROS // MICROS_PER_CREDIT
_MICRO = Decimal("0.000001")


class InvalidAmountError(ValueError):
    """An amount that is not a number, not exact in micro-credits, or out of range."""


def micros(credits: Decimal | int | float | str) -> int:
    """Credits as exact micro-credits.

    Raises:
        InvalidAmountError: not a finite number, more than six decimals, or beyond ±10^9 credits.
    """
    try:
        amount = Decimal(repr(credits) if isinstance(credits, float) else credits)
    except InvalidOperation as error:
        raise InvalidAmountError(f"not an amount: {credits!r}") from error
    if not amount.is_finite():
        raise InvalidAmountError(f"not an amount: {credits!r}")
    # Comparing is exact whatever the exponent; arithmetic would round to the context's digits.
    if amount.copy_abs() > _CREDITS_MAX:
        raise InvalidAmountError(f"{credits} is out of range")
    rounded = amount.quantize(_MICRO)
    if rounded != amount:
        raise InvalidAmountError(f"{credits} has more than six decimals")
    return int(rounded.scaleb(6))


def round_micros(amount: Decimal) -> int:
    """Micro-credits of an amount in micro-credits that may have a fraction: halves round up.

    Rounding happens once, on the final price of a request, never on its factors.
    """
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def credits(amount_micro: int) -> int | float:
    """Micro-credits as the JSON number that the wire carries: at most six decimals, no trailing `.0`."""
    whole, rest = divmod(amount_micro, MICROS_PER_CREDIT)
    return whole if rest == 0 else amount_micro / MICROS_PER_CREDIT


def text(amount_micro: int) -> str:
    """Micro-credits for people and tables: plain decimals, no exponent, no needless zeros."""
    sign = "-" if amount_micro < 0 else ""
    whole, rest = divmod(abs(amount_micro), MICROS_PER_CREDIT)
    return f"{sign}{whole}.{rest:06d}".rstrip("0").rstrip(".")
