"""What an installation can be told, and where it is told."""

from babysea_server.settings.sources import load_settings
from babysea_server.settings.table import (
    PROVIDER_VARIABLES,
    REGIONS,
    ProviderSettings,
    Settings,
    SettingsError,
    describe,
    environment_name,
)

__all__ = [
    "PROVIDER_VARIABLES",
    "REGIONS",
    "ProviderSettings",
    "Settings",
    "SettingsError",
    "describe",
    "environment_name",
    "load_settings",
]
