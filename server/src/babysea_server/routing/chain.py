"""Which providers a generation tries, in which order."""

from collections.abc import Callable, Sequence

from babysea_server import errors
from babysea_server.errors import ApiError


class Router:
    """Decides the provider chain of a request at admission.

    An explicit order is followed as given; otherwise the model's own order stands. Providers that this
    installation cannot call are left out.
    """

    def __init__(self, available: Callable[[str], bool]) -> None:
        self._available = available

    def chain(self, model: str, eligible: Sequence[str]) -> tuple[str, ...]:
        """The providers to try, first to last.

        Args:
            eligible: the providers that accept this request, in the order asked for or the model's own.

        Raises:
            ApiError: BSE4011 when none can be called; nothing is reserved then.
        """
        chain = tuple(provider for provider in eligible if self._available(provider))
        if not chain:
            raise ApiError(
                errors.NO_PROVIDER_AVAILABLE,
                f"No provider of {model} is configured on this server.",
                details={"providers": list(eligible)},
            )
        return chain
