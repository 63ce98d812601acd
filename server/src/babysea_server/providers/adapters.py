"""All adapters by provider id, our own and those of other packages, and which of them the operator configured."""

import difflib
import functools
from collections.abc import Mapping
from importlib.metadata import entry_points

from babysea_server.providers.alibabacloud import AlibabaCloud
from babysea_server.providers.base import Provider
from babysea_server.providers.bfl import Bfl
from babysea_server.providers.byteplus import BytePlus
from babysea_server.providers.cloudflare import Cloudflare
from babysea_server.providers.comfyui.adapter import ComfyUI
from babysea_server.providers.fal import Fal
from babysea_server.providers.google import Google
from babysea_server.providers.openai import OpenAI
from babysea_server.providers.openai_compatible import OpenAICompatible
from babysea_server.providers.replicate import Replicate
from babysea_server.providers.runway import Runway
from babysea_server.providers.stability import Stability
from babysea_server.settings import ProviderSettings, SettingsError

#: Packages name their adapters here: `[project.entry-points."babysea.providers"]`, id = "module:Class".
ENTRY_POINTS = "babysea.providers"

_OWN: tuple[type[Provider], ...] = (
    AlibabaCloud,
    Bfl,
    BytePlus,
    Cloudflare,
    ComfyUI,
    Fal,
    Google,
    OpenAI,
    OpenAICompatible,
    Replicate,
    Runway,
    Stability,
)


@functools.cache  # what is installed does not change under a process, and looking for it reads many files
def adapters() -> Mapping[str, type[Provider]]:
    """Every adapter that is installed, by provider id.

    Raises:
        SettingsError: a package's adapter cannot be loaded, or takes an id that is taken.
    """
    found = {adapter.name: adapter for adapter in _OWN}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            adapter = point.load()
        except Exception as error:
            raise SettingsError(
                f"the provider {point.name!r} of {point.value} cannot be loaded: {error}"
            ) from error
        if not (isinstance(adapter, type) and issubclass(adapter, Provider)) or adapter.name != point.name:
            raise SettingsError(f"{point.value} is not a provider named {point.name!r}")
        if point.name in found:
            raise SettingsError(f"{point.value}: there is a provider {point.name!r} already")
        found[point.name] = adapter
    return dict(sorted(found.items()))


def missing(adapter: type[Provider], settings: ProviderSettings | None) -> tuple[str, ...]:
    """The settings that the provider still needs before it can be called."""
    given = settings or ProviderSettings()
    return tuple(need for need in adapter.needs if not getattr(given, need))


def configured(given: Mapping[str, ProviderSettings]) -> dict[str, Provider]:
    """The providers that have all they need and are not switched off, by id.

    Raises:
        SettingsError: there are settings for a provider that is not installed.
    """
    known = adapters()
    for provider_id in given:
        if provider_id not in known:
            near = difflib.get_close_matches(provider_id, known, 1)
            hint = f", did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise SettingsError(f"providers: there is no provider {provider_id!r}{hint}")
    return {
        provider_id: known[provider_id](settings)
        for provider_id, settings in sorted(given.items())
        if settings.enabled and not missing(known[provider_id], settings)
    }
