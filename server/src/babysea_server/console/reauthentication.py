"""Proof that whoever uses a session is its user, before what a stolen session must not do."""

from datetime import timedelta

from babysea_server.console.forms import FieldErrors
from babysea_server.console.request import PageRequest

#: Who has no password has signed in so recently, or signs in again.
RECENT = timedelta(minutes=15)
FIELD = "current_password"


async def prove(page: PageRequest, errors: FieldErrors) -> bool:
    """Whether the form holds the user's password; what is wrong is added to the errors.

    Raises:
        PageFaultError: 429, too many tries in this minute.
    """
    if page.user.password is None:
        if page.now - page.signed_in.session.created_at <= RECENT:
            return True
        errors[""] = "Sign out and in again first: you have no password to confirm this with."
        return False
    await page.region.attempts.take(page.client_ip, f"password:{page.user.id}")
    if await page.region.passwords.verify(page.user.password, page.form.raw(FIELD)):
        return True
    errors[FIELD] = "This is not your password."
    return False
