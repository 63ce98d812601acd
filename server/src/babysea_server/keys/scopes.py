"""Scopes and their presets. Source: contract, section 2."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

Scope = Literal[
    "generation:write", "generation:read", "generation:delete", "account:read", "health:read", "library:read"
]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PRESETS: Mapping[str, tuple[str, ...]] = {
    "full_access": SCOPES,
    "generate_only": ("generation:write", "generation:read", "library:read"),
    "read_only": ("generation:read", "account:read", "health:read", "library:read"),
    "monitor_only": ("health:read", "library:read"),
}


def resolve_scopes(preset: str | None, scopes: Sequence[str]) -> tuple[str, ...]:
    """The scopes of a new key, in canonical order: a preset's, or a custom set.

    Raises:
        ValueError: unknown preset or scope, both given, or none.
    """
    if preset and scopes:
        raise ValueError("give either a preset or scopes, not both")
    if preset:
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; presets are {', '.join(PRESETS)}")
        return PRESETS[preset]
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise ValueError(f"unknown scope {', '.join(unknown)}; scopes are {', '.join(SCOPES)}")
    if not scopes:
        raise ValueError("a key needs at least one scope")
    return tuple(scope for scope in SCOPES if scope in scopes)
