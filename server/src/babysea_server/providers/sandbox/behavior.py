"""How the sandbox can be told to behave, in settings or by magic words in the prompt."""

import re
from collections.abc import Mapping

import msgspec

_MAGIC = re.compile(r"\[sandbox:([^\]]{1,200})\]")

#: Every behaviour and what it does, for documentation and error messages.
BEHAVIORS: Mapping[str, str] = {
    "ok": "finishes after the usual latency",
    "slow": "finishes after the given number of seconds, as in slow:10",
    "never_sent": "the connection is refused",
    "refuse_busy": "429 with Retry-After: 1",
    "refuse_auth": "401",
    "refuse_funds": "402",
    "refuse_input": "422",
    "refuse_policy": "422 for the content",
    "fail": "takes the job and fails it",
    "time_out": "takes the job and never finishes it",
    "lose_answer": "takes the job, and the answer is lost on its way back",
    "lose_request": "the request is lost on its way there, and so is any answer",
    "no_output": "succeeds without an output",
    "bad_output": "succeeds with a file that cannot be read",
}

_SECONDS_MAX = 3600.0


class UnknownBehaviorError(ValueError):
    """A behaviour that the sandbox does not know."""


class Behavior(msgspec.Struct, frozen=True):
    """One behaviour; `seconds` only for `slow`."""

    name: str
    seconds: float | None = None

    def __str__(self) -> str:
        return self.name if self.seconds is None else f"{self.name}:{self.seconds:g}"


def parse(text: str) -> Behavior:
    """A behaviour from its spelling, e.g. `fail` or `slow:10`.

    Raises:
        UnknownBehaviorError: with the list of those that exist.
    """
    name, _, argument = text.strip().partition(":")
    if name not in BEHAVIORS:
        raise UnknownBehaviorError(f"unknown sandbox behaviour {name!r}; there are {', '.join(BEHAVIORS)}")
    if name != "slow":
        return Behavior(name)
    try:
        seconds = float(argument or "5")
    except ValueError:
        raise UnknownBehaviorError(f"slow takes seconds, as in slow:10, not {argument!r}") from None
    if not 0 <= seconds <= _SECONDS_MAX:
        raise UnknownBehaviorError(f"slow takes 0 to {_SECONDS_MAX:g} seconds")
    return Behavior(name, seconds)


def choose(provider_id: str, prompt: str, settings: Mapping[str, Behavior]) -> Behavior:
    """The behaviour for one submit: magic words in the prompt, else settings, else `ok`.

    `[sandbox:fail]` speaks to every provider, `[sandbox:fal=fail]` to one; several are separated by commas.
    In settings, the name `*` stands for every provider. Words that mean nothing are ignored: it is a prompt.
    """
    for_all: Behavior | None = None
    for words in _MAGIC.findall(prompt):
        for word in words.split(","):
            name, equals, behavior = word.partition("=")
            try:
                if not equals:
                    for_all = for_all or parse(name)
                elif name.strip() == provider_id:
                    return parse(behavior)
            except UnknownBehaviorError:
                continue
    return for_all or settings.get(provider_id) or settings.get("*") or Behavior("ok")


def plain_prompt(prompt: str) -> str:
    """The prompt without magic words, as it is drawn."""
    return _MAGIC.sub("", prompt).strip()
