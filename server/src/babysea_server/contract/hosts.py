"""The hosts that the API answers on: the installation's own, and accounts' custom domains."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from uuid import UUID


class CustomHost(NamedTuple):
    """What an active custom domain stands for."""

    region: str
    account_id: UUID


class RegionHosts(Mapping[str, str]):
    """The region of each host name, in lower case and without port.

    Custom domains are found by their name, and never listed: nobody is told which there are.

    Args:
        own: the region of each name of the installation.
        custom_host: what another name stands for, if it is an active custom domain.
    """

    def __init__(self, own: Mapping[str, str], custom_host: Callable[[str], CustomHost | None]) -> None:
        self._own = own
        self._custom_host = custom_host

    def __getitem__(self, name: str) -> str:
        if name in self._own:
            return self._own[name]
        custom = self._custom_host(name)
        if custom is None:
            raise KeyError(name)
        return custom.region

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)
