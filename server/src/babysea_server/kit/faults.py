"""Faults that every noun of the product has."""


class NotFoundError(LookupError):
    """What was named is not there; the message says what, for people."""
