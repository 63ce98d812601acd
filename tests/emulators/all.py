"""Every emulator by provider id: a module of this package that holds an `Emulator` is one."""

import importlib
import pkgutil

import tests.emulators
from tests.emulators.kit import Emulator

_OTHERS = {"all", "kit", "__main__"}


def _found() -> dict[str, type[Emulator]]:
    for module in pkgutil.iter_modules(tests.emulators.__path__):
        if module.name not in _OTHERS:
            importlib.import_module(f"tests.emulators.{module.name}")
    return {emulator.provider: emulator for emulator in Emulator.__subclasses__()}


EMULATORS = _found()
