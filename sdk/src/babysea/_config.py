"""Where to send requests, and with which key: arguments, then environment, then defaults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from babysea._errors import ConfigurationError

REGIONS = ("us", "eu", "jp")

_LOCAL = ("localhost", "127.0.0.1", "::1")
_REGIONAL_HOST = re.compile(rf"api\.(?:{'|'.join(REGIONS)})\.(.+)")
_DEFAULT_BASE_URL = "http://localhost:8000"
_SHOWN = 9  # the part of a key that the server tells, too


@dataclass(frozen=True, slots=True)
class Config:
    """An address without a slash at its end, the Host header where it is another, and the key, which is never shown."""

    base_url: str
    host: str | None
    api_key: str = field(repr=False)

    @property
    def shown_key(self) -> str:
        """The beginning of the key, by which its owner knows it."""
        return f"{self.api_key[:_SHOWN]}..." if len(self.api_key) >= 4 * _SHOWN else "..."


def configure(
    api_key: str | None, region: str | None, base_url: str | None, environment: Mapping[str, str]
) -> Config:
    """The settings of a client.

    Raises:
        ConfigurationError: there is no key, or the address or the region makes no sense.
    """
    key = (api_key or environment.get("BABYSEA_API_KEY") or "").strip()
    if not key:
        raise ConfigurationError("there is no API key: pass api_key or set BABYSEA_API_KEY")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key holds characters that no key has")
    if region is not None and region not in REGIONS:
        raise ConfigurationError(f"a region is one of {', '.join(REGIONS)}")
    address = (base_url or environment.get("BABYSEA_BASE_URL") or _DEFAULT_BASE_URL).strip().rstrip("/")
    if "{region}" in address:
        if region is None:
            raise ConfigurationError("the base URL has a place for a region: pass region")
        return Config(_checked(address.replace("{region}", region)).geturl(), None, key)
    url = _checked(address)
    if region is None:
        return Config(address, None, key)
    return Config(*_regional(url, region), key)


def _checked(address: str) -> SplitResult:
    try:
        url = urlsplit(address)
        _ = url.port  # reading it checks it
    except ValueError:
        url = SplitResult("", "", "", "", "")
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ConfigurationError("the base URL is one of http or https, without query and fragment")
    if url.username is not None:
        raise ConfigurationError("the base URL must not hold credentials: the API key authenticates")
    return url


def _regional(url: SplitResult, region: str) -> tuple[str, str | None]:
    """The address with the region in it, and the Host header where only that can tell it."""
    name = url.hostname or ""
    port = "" if url.port is None else f":{url.port}"
    if match := _REGIONAL_HOST.fullmatch(name):
        return url._replace(netloc=f"api.{region}.{match[1]}{port}").geturl(), None
    if name in _LOCAL:
        return url.geturl(), f"api.{region}.localhost{port}"
    raise ConfigurationError(
        "the base URL has no place for a region: write {region} where it belongs, or leave region out"
    )
