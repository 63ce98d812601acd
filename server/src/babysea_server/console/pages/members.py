"""Members: who is in the account and as what; invitations; leaving."""

from collections.abc import Sequence

from starlette.responses import Response

from babysea_server.accounts import invitation_store, invitations, member_store, members
from babysea_server.accounts.member_store import Member
from babysea_server.accounts.members import RoleRefusedError, check_role
from babysea_server.accounts.roles import INVITES, MANAGES, ROLES, Action, Role
from babysea_server.console import people_store
from babysea_server.console.faults import forbidden
from babysea_server.console.forms import FieldErrors
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.navigation import ROOT
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.kit.faults import NotFoundError

_MEMBER_COLUMNS = (
    Column("name", "Name", sort=True),
    Column("role", "Role", sort=True),
    Column("joined", "Joined", sort=True),
    Column("seen", "Last signed in", sort=True),
    Column("totp", "Second step"),
    Column("actions", "Actions", kind="actions"),
)
_INVITATION_COLUMNS = (
    Column("email", "E-mail", sort=True),
    Column("role", "Role"),
    Column("inviter", "Invited by"),
    Column("created", "Invited", sort=True),
    Column("expires", "Expires", sort=True),
    Column("actions", "Actions", kind="actions"),
)
_ROLE_TEXTS: dict[Role, tuple[str, str]] = {
    "primary-owner": ("Primary owner", "Everything, and alone: settings, billing, the account's end."),
    "owner": ("Owner", "Manages API keys, webhooks and domains; invites; manages members."),
    "member": ("Member", "Sees everything, uses the playground, exports; changes nothing."),
}


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, invite, manage = Action.MEMBERS_VIEW, Action.MEMBERS_INVITE, Action.MEMBERS_MANAGE
    return [
        Route("GET", "/members", view, _list),
        Route("GET", "/members/invitations", view, _list_invitations),
        Route("GET", "/members/invite", invite, _ask_invite),
        Route("POST", "/members/invite", invite, _invite),
        Route("GET", "/members/invitations/{invitation_id}/secret", invite, _show_link),
        Route("GET", "/members/invitations/{invitation_id}/revoke", invite, _ask_revoke),
        Route("POST", "/members/invitations/{invitation_id}/revoke", invite, _revoke),
        Route("GET", "/members/{user_id}/role", manage, _ask_role),
        Route("POST", "/members/{user_id}/role", manage, _change_role),
        Route("GET", "/members/{user_id}/remove", manage, _ask_remove),
        Route("POST", "/members/{user_id}/remove", manage, _remove),
        Route("GET", "/members/leave", Action.PROFILE_EDIT, _ask_leave),
        Route("POST", "/members/leave", Action.PROFILE_EDIT, _leave),
    ]


async def _list(page: PageRequest) -> Response:
    listing = Listing.read(
        page.url("/members"), page.query, sorts=people_store.MEMBER_SORTS, default="role", filters=["role"]
    )
    rows, total = await people_store.members(
        page.db, page.account_id, listing, role=listing.filters.get("role")
    )
    return await page.render(
        "members.html",
        listing=listing,
        result=Page.of(rows, listing, total),
        columns=_MEMBER_COLUMNS,
        roles=[(role, _ROLE_TEXTS[role][0]) for role in ROLES],
        role_label=lambda role: _ROLE_TEXTS[role][0],
        manages=MANAGES[page.role],
        open_invitations=await people_store.open_invitations(page.db, page.account_id),
    )


async def _list_invitations(page: PageRequest) -> Response:
    listing = Listing.read(
        page.url("/members/invitations"),
        page.query,
        sorts=people_store.INVITATION_SORTS,
        default="-created",
    )
    rows, total = await people_store.invitations(page.db, page.account_id, listing)
    return await page.render(
        "members/invitations.html",
        listing=listing,
        result=Page.of(rows, listing, total),
        columns=_INVITATION_COLUMNS,
        role_label=lambda role: _ROLE_TEXTS[role][0],
        invites=INVITES[page.role],
        open_invitations=await people_store.open_invitations(page.db, page.account_id),
    )


# ------------------------------------------------------------------------------- invitations


async def _ask_invite(page: PageRequest) -> Response:
    return await _show_invite(page, FieldErrors())


async def _show_invite(page: PageRequest, errors: FieldErrors) -> Response:
    return await page.render(
        "members/invite.html",
        422 if errors else 200,
        form=page.form,
        errors=errors,
        roles=[(role, *_ROLE_TEXTS[role]) for role in INVITES[page.role]],
        default=INVITES[page.role][-1],
        email=page.form.text("email") or page.query.get("email", ""),
        days=invitations.DAYS,
    )


async def _invite(page: PageRequest) -> Response:
    email = page.form.text("email")
    try:
        role = check_role(page.form.text("role"))
    except ValueError:
        return await _show_invite(page, FieldErrors(role="Choose a role."))
    try:
        invitation_id, token = await invitations.invite(
            page.db, page.account_id, email=email, role=role, by_role=page.role, actor=page.actor
        )
    except ValueError as error:
        return await _show_invite(page, FieldErrors(email=str(error)))
    except RoleRefusedError as error:
        raise forbidden(str(error)) from None
    link = f"{page.region.origin}{ROOT}/invitation/{page.region.name}/{token}"
    if page.region.mailing.works:
        _mail(page, email, role, link)
    return await page.redirect(
        f"/members/invitations/{invitation_id}/secret", reveal={str(invitation_id): link}
    )


def _mail(page: PageRequest, email: str, role: Role, link: str) -> None:
    text = (
        f"{page.user.name} ({page.user.email}) invites you to {page.account.name} as {role}.\n\n{link}\n\n"
        f"The link works once, for {invitations.DAYS} days. If you know nothing of it, do nothing."
    )
    page.region.mailing.post(
        email,
        "account.invitation",
        text,
        account_id=page.account_id,
        account_name=page.account.name,
        now=page.now,
    )


async def _show_link(page: PageRequest) -> Response:
    invitation = await invitation_store.get(page.db, page.account_id, page.id("invitation_id"))
    if invitation is None:
        raise NotFoundError("There is no such invitation.")
    return await page.render(
        "members/link.html",
        invitation=invitation,
        link=(await page.revealed()).get(str(invitation.id)),
        mailed=page.region.mailing.works,
    )


async def _ask_revoke(page: PageRequest) -> Response:
    invitation = await invitation_store.get(page.db, page.account_id, page.id("invitation_id"))
    if invitation is None:
        raise NotFoundError("There is no such invitation.")
    return await page.render(
        "confirm.html",
        title="Revoke this invitation?",
        text=f"The link that {invitation.email} has stops working at once.",
        action=f"/members/invitations/{invitation.id}/revoke",
        label="Revoke invitation",
        back="/members/invitations",
    )


async def _revoke(page: PageRequest) -> Response:
    try:
        await invitations.revoke(
            page.db, page.account_id, page.id("invitation_id"), by_role=page.role, actor=page.actor
        )
    except RoleRefusedError as error:
        raise forbidden(str(error)) from None
    return await page.redirect("/members/invitations", "The invitation was revoked.")


# ------------------------------------------------------------------------------- roles


async def _find(page: PageRequest) -> Member:
    """The member that the path names, whom the asker's role manages.

    Raises:
        NotFoundError: not a member.
        PageFaultError: 403.
    """
    member = await member_store.get(page.db, page.account_id, page.id("user_id"))
    if member is None:
        raise NotFoundError("There is no such member.")
    if member.role not in MANAGES[page.role]:
        raise forbidden(f"The role {page.role} does not manage a {member.role}.")
    return member


async def _ask_role(page: PageRequest) -> Response:
    return await _show_role(page, await _find(page), FieldErrors())


async def _show_role(page: PageRequest, member: Member, errors: FieldErrors) -> Response:
    return await page.render(
        "members/role.html",
        422 if errors else 200,
        member=member,
        form=page.form,
        errors=errors,
        roles=[(role, *_ROLE_TEXTS[role]) for role in MANAGES[page.role]],
    )


async def _change_role(page: PageRequest) -> Response:
    member = await _find(page)
    try:
        role = check_role(page.form.text("role"))
    except ValueError:
        return await _show_role(page, member, FieldErrors(role="Choose a role."))
    try:
        await members.change_role(
            page.db, page.account_id, member.user_id, role, by_role=page.role, actor=page.actor
        )
    except RoleRefusedError as error:
        raise forbidden(str(error)) from None
    return await page.redirect("/members", f"{member.name} is {role} now.")


async def _ask_remove(page: PageRequest) -> Response:
    member = await _find(page)
    return await page.render(
        "confirm.html",
        title=f"Remove {member.name}?",
        text=f"{member.email} loses access to this account at once. API keys stay as they are.",
        action=f"/members/{member.user_id}/remove",
        label="Remove member",
        back="/members",
    )


async def _remove(page: PageRequest) -> Response:
    member = await _find(page)
    try:
        await members.remove(page.db, page.account_id, member.user_id, by_role=page.role, actor=page.actor)
    except RoleRefusedError as error:
        raise forbidden(str(error)) from None
    return await page.redirect("/members", f"{member.name} was removed.")


# ------------------------------------------------------------------------------- leaving


async def _ask_leave(page: PageRequest) -> Response:
    return await _show_leave(page, FieldErrors())


async def _show_leave(page: PageRequest, errors: FieldErrors) -> Response:
    return await page.render(
        "confirm.html",
        422 if errors else 200,
        title=f"Leave {page.account.name}?",
        text="You lose access at once. To come back, somebody must invite you again.",
        action="/members/leave",
        label="Leave account",
        back="/members",
        errors=errors,
    )


async def _leave(page: PageRequest) -> Response:
    try:
        await members.leave(page.db, page.account_id, page.user.id, actor=page.actor)
    except RoleRefusedError as error:
        return await _show_leave(page, FieldErrors({"": str(error)}))
    return page.leave(f"{ROOT}/region/{page.region.name}")
