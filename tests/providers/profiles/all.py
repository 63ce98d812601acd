"""Every profile by provider id."""

import importlib
import pkgutil

import tests.providers.profiles
from tests.providers.profiles.kit import Profile

_OTHERS = {"all", "kit"}


def _found() -> dict[str, Profile]:
    names = [module.name for module in pkgutil.iter_modules(tests.providers.profiles.__path__)]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names if name not in _OTHERS]
    return {module.PROFILE.emulator.provider: module.PROFILE for module in modules}


PROFILES = _found()
