"""The plan that new accounts are on, and who may make one."""

from babysea_server.accounts import user_store
from babysea_server.accounts.users import SignUpRefusedError
from babysea_server.console.region import ConsoleRegion
from babysea_server.kit.calls import Plan


def sign_up_plan(region: ConsoleRegion) -> Plan | None:
    """The plan of new accounts; None: the plans file has none of this name."""
    return region.plans.get(region.settings.sign_up_plan)


async def may_sign_up(region: ConsoleRegion, *, invited: bool) -> bool:
    """Whether somebody may sign up now; the first user of a region needs no invitation."""
    if sign_up_plan(region) is None or region.settings.sign_up == "closed":
        return False
    return invited or region.settings.sign_up == "open" or not await user_store.exists(region.db)


async def check_sign_up(region: ConsoleRegion, connection: object, *, invited: bool) -> Plan:
    """The plan for somebody who signs up, decided in the transaction that makes the user.

    Raises:
        SignUpRefusedError: nobody may, or only who is invited.
    """
    plan = sign_up_plan(region)
    if plan is None or region.settings.sign_up == "closed":
        raise SignUpRefusedError("Nobody can sign up here.")
    if not invited and region.settings.sign_up == "invite" and await user_store.any_user(connection):
        raise SignUpRefusedError(
            "Only who is invited can sign up here. Ask an owner of an account to invite you."
        )
    return plan
