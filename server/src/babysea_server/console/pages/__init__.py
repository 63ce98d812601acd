"""The pages: each a module with its routes. Whoever adds one names it here."""

from babysea_server.console.pages import (
    activity,
    api_keys,
    billing,
    domains,
    email_change,
    entrance,
    logs,
    members,
    metrics,
    models,
    notifications,
    oidc,
    passwords,
    playground,
    profile,
    security,
    session,
    settings,
    sign_up,
    webhook,
)
from babysea_server.console.pages import credits as credits_page

#: In the order of the sidebar, then what has no entry there.
ACCOUNT_PAGES = (
    metrics,
    api_keys,
    webhook,
    logs,
    credits_page,
    playground,
    models,
    domains,
    settings,
    members,
    billing,
    profile,
    security,
    notifications,
    activity,
    session,
)
#: For people who are not signed in.
OPEN_PAGES = (entrance, sign_up, passwords, oidc, email_change)
