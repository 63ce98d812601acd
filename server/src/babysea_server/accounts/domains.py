"""Custom domains: asked for, verified by their DNS records, looked at again, given up.

A domain belongs to whoever can set its records. The CNAME alone would not tell to whom: it is the same for every
account, so a second record names the domain as this account asked for it.
"""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

import msgspec
import structlog

from babysea_server.accounts import activity
from babysea_server.accounts import domain_store as store
from babysea_server.accounts.activity import SYSTEM, Actor
from babysea_server.accounts.domain_check import DnsUnavailableError, DomainCheck
from babysea_server.accounts.domain_names import PROOF_LABEL, Record, check_hostname, shown_hostname
from babysea_server.accounts.domain_store import Domain, HostnameTakenError
from babysea_server.accounts.notices import notify
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError

_log = structlog.get_logger(__name__)

LOST = "domain.lost"
#: Workers look for domains that are due this often, and at each domain itself less often.
EVERY_S = 60.0
ACTIVE_EVERY_S = 3600.0
PENDING_EVERY_S = 300.0
#: A pending domain is looked at by itself for so long.
PENDING_FOR_S = 7 * 86_400.0
#: An active domain whose CNAME is gone stays active for so long: mistakes and moves of a zone are mended meanwhile.
LOST_AFTER_S = 72 * 3600.0
_AT_ONCE = 20
#: For one look at all records of a domain.
DEADLINE_S = 12.0


class DomainSite(msgspec.Struct, frozen=True):
    """What custom domains of a region need to know of the installation."""

    target: str
    """Where their CNAMEs lead: the region's API host."""
    own: Sequence[str]
    """Names of the installation: nobody can have them, nor what is beneath them."""
    check: DomainCheck


class Verdict(StrEnum):
    """What a look at the records found."""

    VERIFIED = "verified"
    NO_CNAME = "no_cname"
    OTHER_CNAME = "other_cname"
    """It leads elsewhere."""
    NO_PROOF = "no_proof"
    """The CNAME is right, and the TXT record is not there."""
    TAKEN = "taken"
    """Another account has verified this name first."""
    UNAVAILABLE = "unavailable"
    """The name server did not answer."""


def records(domain: Domain, target: str) -> Sequence[Record]:
    """What the owner of the domain sets.

    Args:
        target: the region's API host.
    """
    return (
        Record("CNAME", domain.hostname, target),
        Record("TXT", f"{PROOF_LABEL}.{domain.hostname}", f"babysea-domain={domain.id}"),
    )


async def add(db: Database, account_id: UUID, text: str, site: DomainSite, *, actor: Actor) -> Domain:
    """Ask for a domain; it is pending until its records are right.

    Args:
        text: the name as somebody typed it.

    Raises:
        ValueError: it is no such name; the message is a sentence.
        HostnameTakenError: another account has it.
        DomainExistsError: the account has one already.
    """
    hostname = check_hostname(text, site.own)
    async with db.transaction() as connection:
        domain = await store.insert(connection, account_id, hostname)
        await activity.record(
            connection, account_id, actor, "domain.added", f"Domain {shown_hostname(hostname)} was added"
        )
    return domain


async def find(db: Database, account_id: UUID) -> Domain:
    """The account's domain.

    Raises:
        NotFoundError: it has none.
    """
    domain = await store.of_account(db, account_id)
    if domain is None:
        raise NotFoundError("The account has no custom domain.")
    return domain


async def remove(db: Database, account_id: UUID, *, actor: Actor) -> Domain:
    """Give the account's domain up; every API process knows within a second.

    Raises:
        NotFoundError: it has none.
    """
    async with db.transaction() as connection:
        domain = await store.delete(connection, account_id)
        if domain is None:
            raise NotFoundError("The account has no custom domain.")
        name = shown_hostname(domain.hostname)
        await activity.record(connection, account_id, actor, "domain.removed", f"Domain {name} was removed")
    return domain


async def verify(db: Database, domain: Domain, site: DomainSite, *, actor: Actor) -> Verdict:
    """Look at the records of a domain, and make it active where they are right.

    Args:
        actor: whose doing it is that it becomes active.
    """
    verdict = await _look(domain, site)
    if verdict is not Verdict.VERIFIED:
        await store.note_checked(db, domain.id)
        return verdict
    try:
        async with db.transaction() as connection:
            if await store.note_verified(connection, domain.id):
                text = f"Domain {shown_hostname(domain.hostname)} was verified and is active"
                await activity.record(connection, domain.account_id, actor, "domain.verified", text)
    except HostnameTakenError:
        await store.note_checked(db, domain.id)
        return Verdict.TAKEN
    return verdict


async def _look(domain: Domain, site: DomainSite) -> Verdict:
    cname, proof = records(domain, site.target)
    try:
        async with asyncio.timeout(DEADLINE_S):
            chain = await site.check.leads_to(cname.name)
            if cname.value not in chain:
                return Verdict.OTHER_CNAME if chain else Verdict.NO_CNAME
            # Once active, the CNAME alone says that the owner still wants it.
            if domain.state == "pending" and proof.value not in await site.check.texts(proof.name):
                return Verdict.NO_PROOF
    except (DnsUnavailableError, TimeoutError) as error:
        _log.info("domain_not_looked_at", domain=domain.hostname, error=str(error) or "too slow")
        return Verdict.UNAVAILABLE
    return Verdict.VERIFIED


class DomainJob:
    """Looks at domains again and again; workers share the work."""

    def __init__(self, db: Database, site: DomainSite) -> None:
        self._db = db
        self._site = site

    async def run(self) -> None:
        """Look at those that are due, one after the other.

        Raises:
            DatabaseUnavailableError, asyncpg.PostgresError: the rest is looked at when it is due again.
        """
        due = await store.claim_due(
            self._db,
            active_every_s=ACTIVE_EVERY_S,
            pending_every_s=PENDING_EVERY_S,
            pending_for_s=PENDING_FOR_S,
            limit=_AT_ONCE,
        )
        for domain in due:
            verdict = await verify(self._db, domain, self._site, actor=SYSTEM)
            if domain.state == "active" and verdict in (Verdict.NO_CNAME, Verdict.OTHER_CNAME):
                await self._lose(domain)

    async def _lose(self, domain: Domain) -> None:
        async with self._db.transaction() as connection:
            if not await store.note_lost(connection, domain.id, after_s=LOST_AFTER_S):
                return
            name = shown_hostname(domain.hostname)
            text = f"The domain {name} no longer leads to {self._site.target}; requests to it are refused."
            await notify(connection, domain.account_id, LOST, text, {"hostname": domain.hostname})
            await activity.record(connection, domain.account_id, SYSTEM, "domain.lost", text)
