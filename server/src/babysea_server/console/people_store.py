"""SQL on members, invitations and sessions that only the console's lists ask."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from babysea_server.accounts.invitation_store import Invitation
from babysea_server.accounts.member_store import Member
from babysea_server.accounts.session_store import Session
from babysea_server.console.listing import Listing
from babysea_server.db.pool import Database

MEMBER_SORTS = {"name": "lower(u.name)", "role": "m.role", "joined": "m.created_at", "seen": "u.signed_in_at"}
INVITATION_SORTS = {"email": "lower(i.email)", "created": "i.created_at", "expires": "i.expires_at"}
SESSION_SORTS = {"seen": "s.seen_at", "created": "s.created_at"}


async def members(
    db: Database, account_id: UUID, listing: Listing, *, role: str | None
) -> tuple[Sequence[Member], int]:
    """Members by a part of their name or address, one more than fit on the page, and how many there are."""
    where = """FROM memberships m JOIN users u ON u.id = m.user_id
        WHERE m.account_id = $1 AND ($2 = '' OR strpos(lower(u.name || ' ' || u.email), lower($2)) > 0)
          AND ($3::text IS NULL OR m.role::text = $3)"""
    rows, total = await _page(
        db,
        f"""SELECT u.id AS user_id, u.name, u.email, m.role::text AS role, m.created_at AS joined_at,
                   u.signed_in_at, u.totp_secret IS NOT NULL AS has_totp {where}
            ORDER BY {listing.order_by}, u.id LIMIT $4 OFFSET $5""",
        f"SELECT count(*) {where}",
        (account_id, listing.q, role),
        listing,
    )
    return [Member(**row) for row in rows], total


async def invitations(db: Database, account_id: UUID, listing: Listing) -> tuple[Sequence[Invitation], int]:
    """Open invitations by a part of the address, one more than fit on the page, and how many there are."""
    where = """FROM invitations i JOIN accounts a ON a.id = i.account_id LEFT JOIN users u ON u.id = i.invited_by
        WHERE i.account_id = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL
          AND ($2 = '' OR strpos(lower(i.email), lower($2)) > 0)"""
    rows, total = await _page(
        db,
        f"""SELECT i.id, i.account_id, a.name AS account_name, a.slug AS account_slug, i.email,
                   i.role::text AS role, i.invited_by, u.name AS inviter, i.created_at, i.expires_at,
                   i.expires_at <= now() AS is_expired {where}
            ORDER BY {listing.order_by}, i.id LIMIT $3 OFFSET $4""",
        f"SELECT count(*) {where}",
        (account_id, listing.q),
        listing,
    )
    return [Invitation(**row) for row in rows], total


async def open_invitations(db: Database, account_id: UUID) -> int:
    """How many open invitations an account has."""
    found: int = await db.fetchval(
        """SELECT count(*) FROM invitations
           WHERE account_id = $1 AND accepted_at IS NULL AND revoked_at IS NULL""",
        account_id,
    )
    return found


async def sessions(
    db: Database, user_id: UUID, listing: Listing, *, idle_s: int
) -> tuple[Sequence[Session], int]:
    """Sessions that would be let in, by a part of the browser's name, one more than fit on the page, and how many."""
    where = """FROM sessions s WHERE s.user_id = $1 AND NOT s.awaits_totp AND s.expires_at > now()
          AND s.seen_at > now() - make_interval(secs => $3)
          AND ($2 = '' OR strpos(lower(s.user_agent || ' ' || s.address_hash), lower($2)) > 0)"""
    rows, total = await _page(
        db,
        f"""SELECT s.id, s.user_id, s.awaits_totp, s.created_at, s.seen_at, s.expires_at, s.user_agent,
                   s.address_hash, s.flash {where} ORDER BY {listing.order_by}, s.id LIMIT $4 OFFSET $5""",
        f"SELECT count(*) {where}",
        (user_id, listing.q, idle_s),
        listing,
    )
    return [Session(**row) for row in rows], total


async def _page(
    db: Database, query: str, count: str, arguments: Sequence[Any], listing: Listing
) -> tuple[Sequence[Any], int]:
    rows = await db.fetch(query, *arguments, listing.size + 1, listing.offset)
    total: int = await db.fetchval(count, *arguments)
    return rows, total
