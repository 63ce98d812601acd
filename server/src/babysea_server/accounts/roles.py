"""What each role may do in an account: the one table that decides it.

Whatever a page shows or hides, its routes name an action, and the action is looked up here before anything runs.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, get_args

Role = Literal["primary-owner", "owner", "member"]
#: Strongest first.
ROLES: tuple[Role, ...] = get_args(Role)


class Action(StrEnum):
    """What can be done in an account: `area.verb`."""

    METRICS_VIEW = "metrics.view"
    API_KEYS_VIEW = "api_keys.view"
    API_KEYS_MANAGE = "api_keys.manage"
    WEBHOOKS_VIEW = "webhooks.view"
    WEBHOOKS_MANAGE = "webhooks.manage"
    LOGS_VIEW = "logs.view"
    LOGS_EXPORT = "logs.export"
    CREDITS_VIEW = "credits.view"
    CREDITS_EXPORT = "credits.export"
    PLAYGROUND_USE = "playground.use"
    MODELS_VIEW = "models.view"
    DOMAINS_VIEW = "domains.view"
    DOMAINS_MANAGE = "domains.manage"
    SETTINGS_VIEW = "settings.view"
    SETTINGS_EDIT = "settings.edit"
    ACCOUNT_DELETE = "account.delete"
    ACCOUNT_TRANSFER = "account.transfer"
    MEMBERS_VIEW = "members.view"
    MEMBERS_INVITE = "members.invite"
    MEMBERS_MANAGE = "members.manage"
    BILLING_VIEW = "billing.view"
    BILLING_EDIT = "billing.edit"
    NOTIFICATIONS_VIEW = "notifications.view"
    NOTIFICATIONS_EDIT = "notifications.edit"
    ACTIVITY_VIEW = "activity.view"
    ACTIVITY_EXPORT = "activity.export"
    PROFILE_VIEW = "profile.view"
    """One's own: it says nothing about the account."""
    PROFILE_EDIT = "profile.edit"
    ACCOUNT_CREATE = "account.create"
    EVENTS_HEAR = "events.hear"


_ALL: frozenset[Role] = frozenset(ROLES)
_OWNERS: frozenset[Role] = frozenset({"primary-owner", "owner"})
_PRIMARY: frozenset[Role] = frozenset({"primary-owner"})

ALLOWED: Mapping[Action, frozenset[Role]] = {
    Action.METRICS_VIEW: _ALL,
    Action.API_KEYS_VIEW: _ALL,
    Action.API_KEYS_MANAGE: _OWNERS,
    Action.WEBHOOKS_VIEW: _ALL,
    Action.WEBHOOKS_MANAGE: _OWNERS,
    Action.LOGS_VIEW: _ALL,
    Action.LOGS_EXPORT: _ALL,
    Action.CREDITS_VIEW: _ALL,
    Action.CREDITS_EXPORT: _ALL,
    Action.PLAYGROUND_USE: _ALL,
    Action.MODELS_VIEW: _ALL,
    Action.DOMAINS_VIEW: _ALL,
    Action.DOMAINS_MANAGE: _OWNERS,
    Action.SETTINGS_VIEW: _ALL,
    Action.SETTINGS_EDIT: _PRIMARY,
    Action.ACCOUNT_DELETE: _PRIMARY,
    Action.ACCOUNT_TRANSFER: _PRIMARY,
    Action.MEMBERS_VIEW: _ALL,
    Action.MEMBERS_INVITE: _ALL,  # to which roles: INVITES
    Action.MEMBERS_MANAGE: _OWNERS,  # whom: MANAGES
    Action.BILLING_VIEW: _ALL,
    Action.BILLING_EDIT: _PRIMARY,
    Action.NOTIFICATIONS_VIEW: _ALL,
    Action.NOTIFICATIONS_EDIT: _OWNERS,
    Action.ACTIVITY_VIEW: _ALL,
    Action.ACTIVITY_EXPORT: _ALL,
    Action.PROFILE_VIEW: _ALL,
    Action.PROFILE_EDIT: _ALL,
    Action.ACCOUNT_CREATE: _ALL,
    Action.EVENTS_HEAR: _ALL,
}

#: The roles that each role may invite people to. There is one primary owner, so nobody is invited to be it.
INVITES: Mapping[Role, tuple[Role, ...]] = {
    "primary-owner": ("owner", "member"),
    "owner": ("owner", "member"),
    "member": ("member",),
}
#: Whose role each role may change, and whom it may remove.
MANAGES: Mapping[Role, tuple[Role, ...]] = {
    "primary-owner": ("owner", "member"),
    "owner": ("member",),
    "member": (),
}


def may(role: Role, action: Action) -> bool:
    """Whether the role allows the action."""
    return role in ALLOWED[action]
