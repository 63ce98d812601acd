"""Where the console is, and its sidebar: the entries and their order."""

import msgspec

from babysea_server.accounts.roles import Action

ROOT = "/console"


class Entry(msgspec.Struct, frozen=True):
    """One page of the sidebar."""

    path: str
    label: str
    icon: str
    action: Action


SIDEBAR = (
    Entry("/metrics", "Metrics", "chart", Action.METRICS_VIEW),
    Entry("/api-keys", "API keys", "key", Action.API_KEYS_VIEW),
    Entry("/webhook", "Webhook", "webhook", Action.WEBHOOKS_VIEW),
    Entry("/logs", "Logs", "list", Action.LOGS_VIEW),
    Entry("/credits", "Credits", "coins", Action.CREDITS_VIEW),
    Entry("/playground", "Playground", "play", Action.PLAYGROUND_USE),
    Entry("/models", "Models", "cube", Action.MODELS_VIEW),
    Entry("/domains", "Domains", "globe", Action.DOMAINS_VIEW),
    Entry("/settings", "Settings", "sliders", Action.SETTINGS_VIEW),
    Entry("/members", "Members", "users", Action.MEMBERS_VIEW),
    Entry("/billing", "Billing", "card", Action.BILLING_VIEW),
    Entry("/profile", "My profile", "user", Action.PROFILE_VIEW),
    Entry("/notifications", "Notifications", "bell", Action.NOTIFICATIONS_VIEW),
    Entry("/activity", "Activity", "pulse", Action.ACTIVITY_VIEW),
)
