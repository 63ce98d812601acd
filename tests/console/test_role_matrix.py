"""What belongs to another account is like what is not there, also under one's own address, for every role.

That each route is refused exactly when the table of roles says so is in `test_roles.py`, whom a role may invite, change
and remove in `test_members.py`; here every route that names something is asked for something that there is.
"""

import re
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, console_of
from tests.support import Deployment

from babysea_server.accounts import invitations
from babysea_server.accounts.activity import OPERATOR
from babysea_server.accounts.notices import notify
from babysea_server.accounts.roles import ROLES, Role
from babysea_server.console.routes import Route
from babysea_server.webhooks import endpoints
from babysea_server.webhooks.urls import AddressPolicy
"""
"""
