"""Which providers a generation tries, in which order."""

from collections.abc import Callable, Sequence
from random import Random

from babysea_server import errors
from babysea_server.errors import ApiError

#: This share of the requests that leave the choice to us begins with a provider that is not the best known.
EXPLORATION_SHARE = 0.02


def arrange(eligible: Sequence[str], ranked: Sequence[str] | None) -> tuple[str, ...]:
    """The eligible providers in the order of a ranking; those it does not know follow in their own order.

    Without a ranking the order stays as it is.
    """
    known = [provider for provider in ranked or () if provider in eligible]
    return (*known, *(provider for provider in eligible if provider not in known))


def explore(order: tuple[str, ...], share: float, random: Random) -> tuple[str, ...]:
    """The order itself, or, in this share of all calls, with a random other provider before the rest.

    Else the others' figures would stay what they were, and one that has become better would not be noticed.
    """
    if len(order) < 2 or random.random() >= share:
        return order
    chosen = random.choice(order[1:])
    return (chosen, *(provider for provider in order if provider != chosen))


def unranked(model: str) -> None:
    """No model has a ranking."""


class Router:
    """Decides the provider chain of a request at admission.

    An explicit order is followed as given. Otherwise the model's ranking decides, and where there is none, the
    model's own order. Providers that this installation cannot call are left out. How a provider does at the
    moment is not looked at here but before each attempt (`Breaker`), when it is known best.

    Args:
        available: whether this installation can call a provider.
        ranked: the providers of a model, best first, or None; asks nobody.
        exploration: share of the requests without an order that begin with another provider, 0 to 1.
    """

    def __init__(
        self,
        available: Callable[[str], bool],
        ranked: Callable[[str], Sequence[str] | None] = unranked,
        *,
        exploration: float = EXPLORATION_SHARE,
        random: Random | None = None,
    ) -> None:
        self._available = available
        self._ranked = ranked
        self._exploration = exploration
        self._random = random or Random()

    def chain(self, model: str, eligible: Sequence[str], *, explicit: bool) -> tuple[str, ...]:
        """The providers to try, first to last.

        Args:
            eligible: the providers that accept this request, in the order asked for or the model's own.
            explicit: whether the order was asked for.

        Raises:
            ApiError: BSE4011 when none can be called; nothing is reserved then.
        """
        callable = tuple(provider for provider in eligible if self._available(provider))
        if not callable:
            raise _none_available(model, eligible)
        if explicit:
            return callable
        return explore(arrange(callable, self._ranked(model)), self._exploration, self._random)


def _none_available(model: str, eligible: Sequence[str]) -> ApiError:
    spec = errors.NO_PROVIDER_AVAILABLE
    return ApiError(
        spec,
        f"No provider of {model} is configured on this server.",
        details={"providers": list(eligible)},
        provider_errors=[
            {
                "provider": provider,
                "code": spec.code,
                "type": spec.type,
                "message": f"{provider} is not configured on this server.",
                "retryable": spec.retryable,
            }
            for provider in eligible
        ],
    )
