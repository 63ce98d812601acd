"""Domains: the region's API host, and the account's one custom domain: added, verified, removed."""

from collections.abc import Sequence

from starlette.responses import Response

from babysea_server.accounts import domain_store, domains
from babysea_server.accounts.domain_names import shown_hostname
from babysea_server.accounts.domain_store import DomainExistsError, HostnameTakenError
from babysea_server.accounts.domains import LOST_AFTER_S, Verdict
from babysea_server.accounts.roles import Action
from babysea_server.console.forms import FieldErrors
from babysea_server.console.listing import Column
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route

_COLUMNS = (Column("type", "Type"), Column("name", "Name"), Column("value", "Value"))
_TAKEN = "Another account of this region has this domain."
_FOUND = {
    Verdict.NO_CNAME: "There is no CNAME record yet. Name servers may take a while to tell of a new one.",
    Verdict.OTHER_CNAME: "The CNAME record leads elsewhere. Its value must be the one below.",
    Verdict.NO_PROOF: "The CNAME record is right; the TXT record is not there yet, or has another value.",
    Verdict.TAKEN: _TAKEN,
    Verdict.UNAVAILABLE: "The name server did not answer. Nothing is known about the records; try again in a moment.",
}


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, manage = Action.DOMAINS_VIEW, Action.DOMAINS_MANAGE
    return [
        Route("GET", "/domains", view, _show),
        Route("GET", "/domains/new", manage, _new),
        Route("POST", "/domains/new", manage, _add),
        Route("POST", "/domains/verify", manage, _verify),
        Route("GET", "/domains/remove", manage, _ask_remove),
        Route("POST", "/domains/remove", manage, _remove),
    ]


async def _show(page: PageRequest) -> Response:
    site = page.region.domain_site
    domain = await domain_store.of_account(page.db, page.account_id)
    # What the last look found stands in the address: it is about this moment, and kept nowhere.
    looked = page.query.get("looked", "")
    return await page.render(
        "domains.html",
        target=site.target,
        domain=domain,
        hostname=domain and shown_hostname(domain.hostname),
        records=domain and domains.records(domain, site.target),
        found=_FOUND[Verdict(looked)] if domain and looked in [*_FOUND] else None,
        columns=_COLUMNS,
        lost_after_h=int(LOST_AFTER_S // 3600),
    )


async def _new(page: PageRequest) -> Response:
    return await _show_form(page, FieldErrors())


async def _show_form(page: PageRequest, errors: FieldErrors) -> Response:
    target = page.region.domain_site.target
    return await page.render(
        "domains/new.html", 422 if errors else 200, form=page.form, errors=errors, target=target
    )


async def _add(page: PageRequest) -> Response:
    site, text = page.region.domain_site, page.form.text("hostname")
    try:
        domain = await domains.add(page.db, page.account_id, text, site, actor=page.actor)
    except ValueError as error:
        return await _show_form(page, FieldErrors(hostname=str(error)))
    except HostnameTakenError:
        return await _show_form(page, FieldErrors(hostname=_TAKEN))
    except DomainExistsError:
        return await _show_form(
            page, FieldErrors({"": "The account has a custom domain already. Remove it first."})
        )
    name = shown_hostname(domain.hostname)
    return await page.redirect("/domains", f"{name} was added. Set its records, then verify it.")


async def _verify(page: PageRequest) -> Response:
    domain = await domains.find(page.db, page.account_id)
    verdict = await domains.verify(page.db, domain, page.region.domain_site, actor=page.actor)
    if verdict is Verdict.VERIFIED:
        return await page.redirect("/domains", f"{shown_hostname(domain.hostname)} is active.")
    return await page.redirect(f"/domains?looked={verdict}")


async def _ask_remove(page: PageRequest) -> Response:
    domain = await domains.find(page.db, page.account_id)
    return await page.render(
        "confirm.html",
        title=f"Remove {shown_hostname(domain.hostname)}?",
        text="Requests to it are refused within a second. Take its DNS records away, too: they lead here until then.",
        action="/domains/remove",
        label="Remove domain",
        back="/domains",
    )


async def _remove(page: PageRequest) -> Response:
    domain = await domains.remove(page.db, page.account_id, actor=page.actor)
    return await page.redirect("/domains", f"{shown_hostname(domain.hostname)} was removed.")
