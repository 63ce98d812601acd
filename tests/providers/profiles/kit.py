"""What a profile of a provider says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.emulators.kit import Emulator, Misbehavior


@dataclass(frozen=True)
class Case:
    """A request that the provider serves."""

    model: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Beside the prompt."""
    outputs: int = 1
    submits: int = 1
    """Purchases that it takes."""


@dataclass(frozen=True)
class Outcome:
    """How a misbehaviour ends if no other provider is asked: class in the attempt log, code for the customer.

    `failure` None is a success. `ends_chain` says that no other provider is asked. `purchases` are the jobs that the
    provider must have taken in all.
    """

    failure: str | None = None
    code: str | None = None
    ends_chain: bool = False
    purchases: int | None = None
    media: str = "image"
    """What is generated to see it; the video case where only that can misbehave so."""


SUCCESS = Outcome()


@dataclass(frozen=True)
class Profile:
    """One provider: its emulator, what it serves, and how each misbehaviour ends; a text says why one cannot be."""

    emulator: type[Emulator]
    image: Case | None
    video: Case | None
    outcomes: Mapping[Misbehavior, Outcome | str]
    callback_media: str = "image"
    """What is generated to see callbacks."""
    refuses_forged: bool = False
    """Callbacks may come unsigned; those with a wrong signature are refused all the same."""
