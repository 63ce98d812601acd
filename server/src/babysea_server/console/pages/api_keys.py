"""API keys: the list, and the life of each: created, shown once, rotated, revoked, deleted."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console.forms import FieldErrors, Form
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.keys import service, store
from babysea_server.keys.allowlist import check_allowlist
from babysea_server.keys.scopes import PRESETS, SCOPES, resolve_scopes
from babysea_server.keys.service import GRACE_HOURS, KeyStateError, check_expiry, check_name
from babysea_server.keys.store import ApiKey

_SORTS = {
    "name": "lower(k.name)",
    "last_used": "k.last_used_at",
    "created": "k.created_at",
}
_COLUMNS = (
    Column("name", "Name", sort=True),
    Column("prefix", "Prefix"),
    Column("last_used", "Last used", sort=True),
    Column("created", "Created", sort=True),
    Column("state", "Status"),
    Column("allowlist", "IP allowlist"),
    Column("scopes", "Scopes"),
    Column("actions", "Actions", kind="actions"),
)
_PRESET_NAMES = {
    "full_access": ("Full Access", "Everything a key can do."),
    "generate_only": ("Generate Only", "Make and read generations, read the library."),
    "read_only": ("Read Only", "Read generations, account, health and library."),
    "monitor_only": ("Monitor Only", "Read health and library."),
}
_PRESET_CHOICES = [
    *((name, *texts) for name, texts in _PRESET_NAMES.items()),
    ("custom", "Custom", "Choose each scope yourself."),
]
_SCOPE_TEXTS = {
    "generation:write": "Start and cancel generations; spends credits",
    "generation:read": "Read generations and their files",
    "generation:delete": "Delete generations and their files",
    "account:read": "Read the account, its usage and billing",
    "health:read": "Read the health of providers, storage and cache",
    "library:read": "Read models, providers and prices",
}
_EXPIRIES = [
    ("never", "Never"),
    ("7", "In 7 days"),
    ("30", "In 30 days"),
    ("90", "In 90 days"),
    ("365", "In a year"),
    ("custom", "On a date"),
]
_GRACES = [
    (hours, f"{hours} hour{'' if hours == 1 else 's'}" if hours <= 24 else f"{hours // 24} days")
    for hours in GRACE_HOURS
]
_SECRET = "key"  # noqa: S105 - the name under which it is revealed


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, manage = Action.API_KEYS_VIEW, Action.API_KEYS_MANAGE
    return [
        Route("GET", "/api-keys", view, _list),
        Route("GET", "/api-keys/new", manage, _new),
        Route("POST", "/api-keys/new", manage, _create),
        Route("GET", "/api-keys/{key_id}", view, _detail),
        Route("GET", "/api-keys/{key_id}/secret", manage, _secret),
        Route("GET", "/api-keys/{key_id}/rotate", manage, _ask_rotate),
        Route("POST", "/api-keys/{key_id}/rotate", manage, _rotate),
        Route("GET", "/api-keys/{key_id}/revoke", manage, _ask_revoke),
        Route("POST", "/api-keys/{key_id}/revoke", manage, _revoke),
        Route("GET", "/api-keys/{key_id}/delete", manage, _ask_delete),
        Route("POST", "/api-keys/{key_id}/delete", manage, _delete),
    ]


async def _list(page: PageRequest) -> Response:
    listing = Listing.read(
        page.url("/api-keys"), page.query, sorts=_SORTS, default="-created", filters=["state"]
    )
    rows, total = await store.search(
        page.db,
        page.account_id,
        text=listing.q,
        state=listing.filters.get("state"),
        order_by=listing.order_by,
        limit=listing.size + 1,
        offset=listing.offset,
    )
    return await page.render(
        "api_keys.html",
        listing=listing,
        result=Page.of(rows, listing, total),
        columns=_COLUMNS,
        scopes_label=_scopes_label,
    )


def _scopes_label(scopes: Sequence[str]) -> str:
    """The name of a preset, or how many scopes there are."""
    for name, (label, _) in _PRESET_NAMES.items():
        if set(PRESETS[name]) == set(scopes):
            return label
    return f"{len(scopes)} scope{'' if len(scopes) == 1 else 's'}"


# ------------------------------------------------------------------------------- create


async def _new(page: PageRequest) -> Response:
    return await _show_form(page, FieldErrors())


async def _show_form(page: PageRequest, errors: FieldErrors) -> Response:
    return await page.render(
        "api_keys/new.html",
        422 if errors else 200,
        form=page.form,
        errors=errors,
        presets=_PRESET_CHOICES,
        scopes=[(scope, _SCOPE_TEXTS[scope]) for scope in SCOPES],
        expiries=_EXPIRIES,
    )


async def _create(page: PageRequest) -> Response:
    errors = FieldErrors()
    form = page.form
    name = form.text("name")
    scopes: Sequence[str] = ()
    allowlist: Sequence[str] = ()
    expires_at = None
    try:
        check_name(name)
    except ValueError:
        errors["name"] = "Enter a name of 1 to 100 characters."
    try:
        scopes = _chosen_scopes(form)
    except ValueError as error:
        errors["scopes" if form.text("preset") == "custom" else "preset"] = _sentence(error)
    try:
        allowlist = check_allowlist([entry for entry in form.text("allowlist").split(",") if entry.strip()])
    except ValueError as error:
        errors["allowlist"] = _sentence(error)
    try:
        expires_at = _chosen_expiry(form, page.now)
    except ValueError as error:
        errors["expires_on" if form.text("expires") == "custom" else "expires"] = _sentence(error)
    if errors:
        return await _show_form(page, errors)
    async with page.db.transaction() as connection:
        issued = await service.issue(
            connection,
            account_id=page.account_id,
            name=name,
            scopes=scopes,
            allowlist=allowlist,
            expires_at=expires_at,
        )
        await page.record("api_key.created", f"Key {_named(issued.key)} was created", connection)
    return await page.redirect(f"/api-keys/{issued.key.id}/secret", reveal={_SECRET: issued.secret})


def _chosen_scopes(form: Form) -> Sequence[str]:
    preset = form.text("preset")
    return resolve_scopes(None, form.all("scopes")) if preset == "custom" else resolve_scopes(preset, ())


def _chosen_expiry(form: Form, now: datetime) -> datetime | None:
    chosen = form.text("expires", "never")
    if chosen == "never":
        return None
    if chosen == "custom":
        try:
            day = date.fromisoformat(form.text("expires_on"))
            expires_at = datetime.combine(day, time(), UTC) + timedelta(days=1)
        except (ValueError, OverflowError):
            raise ValueError("Enter a date.") from None
        check_expiry(expires_at, now)
        return expires_at
    if chosen not in dict(_EXPIRIES):
        raise ValueError("Choose when it expires.")
    return now + timedelta(days=int(chosen))


def _sentence(error: ValueError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _named(key: ApiKey) -> str:
    return f"“{key.name}” ({key.prefix}…)"


# ------------------------------------------------------------------------------- one key


async def _find(page: PageRequest) -> ApiKey:
    return await service.find(page.db, page.account_id, page.id("key_id"))


async def _detail(page: PageRequest) -> Response:
    return await page.render("api_keys/detail.html", key=await _find(page))


async def _secret(page: PageRequest) -> Response:
    key = await _find(page)
    secret = (await page.revealed()).get(_SECRET)
    # Another key may have been made in another tab: its secret is not this one's.
    if secret is not None and not secret.startswith(key.prefix):
        secret = None
    replaced = await store.replaced_until(page.db, page.account_id, key.id)
    return await page.render("api_keys/secret.html", key=key, secret=secret, replaced=replaced)


async def _ask_rotate(page: PageRequest) -> Response:
    return await _show_rotate(page, await _find(page), FieldErrors())


async def _show_rotate(page: PageRequest, key: ApiKey, errors: FieldErrors) -> Response:
    return await page.render(
        "api_keys/rotate.html",
        422 if errors else 200,
        key=key,
        form=page.form,
        errors=errors,
        graces=_GRACES,
    )


async def _rotate(page: PageRequest) -> Response:
    key = await _find(page)
    grace = page.form.text("grace")
    if grace not in map(str, GRACE_HOURS):
        return await _show_rotate(page, key, FieldErrors(grace="Choose one of these."))
    try:
        async with page.db.transaction() as connection:
            rotation = await service.rotate(connection, page.account_id, key.id, grace_hours=int(grace))
            description = f"Key {_named(rotation.old)} was rotated; it works for {grace} h more"
            await page.record("api_key.rotated", description, connection)
    except KeyStateError:
        return await _show_rotate(
            page, key, FieldErrors({"": f"Only an active key can be rotated. It is {key.state}."})
        )
    new = rotation.new
    return await page.redirect(f"/api-keys/{new.key.id}/secret", reveal={_SECRET: new.secret})


async def _ask_revoke(page: PageRequest) -> Response:
    key = await _find(page)
    return await page.render(
        "confirm.html",
        title=f"Revoke “{key.name}”?",
        text="It stops working everywhere within a second, and cannot be made to work again.",
        action=f"/api-keys/{key.id}/revoke",
        label="Revoke key",
        back="/api-keys",
    )


async def _revoke(page: PageRequest) -> Response:
    async with page.db.transaction() as connection:
        key = await service.revoke(connection, page.account_id, page.id("key_id"))
        await page.record("api_key.revoked", f"Key {_named(key)} was revoked", connection)
    return await page.redirect("/api-keys", f"“{key.name}” was revoked.")


async def _ask_delete(page: PageRequest) -> Response:
    key = await _find(page)
    return await page.render(
        "confirm.html",
        title=f"Delete “{key.name}”?",
        text="It stops working at once and leaves this list. Generations and logs that were made with it stay.",
        action=f"/api-keys/{key.id}/delete",
        label="Delete key",
        back="/api-keys",
    )


async def _delete(page: PageRequest) -> Response:
    async with page.db.transaction() as connection:
        key = await service.delete(connection, page.account_id, page.id("key_id"))
        await page.record("api_key.deleted", f"Key {_named(key)} was deleted", connection)
    return await page.redirect("/api-keys", f"“{key.name}” was deleted.")
