"""Faults put into the server on purpose, in this process and this process's database alone."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from unittest.mock import patch

from tests.simulation.database import Server

from babysea_server.execution import store
from babysea_server.execution.lease import Lease
from babysea_server.generations.admission import Admission, AdmissionRequest, Admissions
from babysea_server.providers.base import Job, NotFound
from babysea_server.providers.runner import Runner


@dataclass(frozen=True)
class Mutation:
    """One fault: what is wrong, and how it is made and taken back."""

    name: str
    made: Callable[[Server], AbstractContextManager[object]]


def _in_function(name: str, function: str, *changes: tuple[str, str]) -> Mutation:
    """Text of a function of the database replaced."""

    @contextmanager
    def made(server: Server) -> Iterator[None]:
        [(right,)] = server.fetch("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = $1", function)
        wrong = right
        for old, new in changes:
            assert wrong.count(old) == 1, f"{function} no longer says {old!r}"
            wrong = wrong.replace(old, new)
        server.execute(wrong)
        try:
            yield
        finally:
            server.execute(right)

    return Mutation(name, made)


def _in_statement(name: str, statement: str, old: str, new: str) -> Mutation:
    """What a regular expression finds in a statement of the worker replaced."""

    def made(_server: Server) -> AbstractContextManager[object]:
        wrong, count = re.subn(old, new, getattr(store, statement))
        assert count, f"{statement} no longer says {old!r}"
        return patch.object(store, statement, wrong)

    return Mutation(name, made)


def _in_class(name: str, owner: type, method: str, wrong: Callable[..., Any]) -> Mutation:
    """A method replaced."""
    return Mutation(name, lambda _server: patch.object(owner, method, wrong))


async def _never_arrived(_runner: Runner, _job: Job) -> NotFound:
    return NotFound()


async def _surely_accepted(
    _admissions: Admissions, requests: Sequence[AdmissionRequest], _deadline: datetime
) -> list[Admission]:
    return [
        Admission("accepted", generation_id=request.generation_id, prediction_id=request.prediction_id)
        for request in requests
    ]


_FENCED = "AND (p_worker IS NULL OR (g.worker_id = p_worker AND g.fence = u.fence))"
_CHARGE_FIRST = """
    INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description)
    SELECT a.id, g.id, 'charge', g.reserved, a.credit_balance, g.model
    FROM unnest(p_ids, p_statuses) AS u (id, status) JOIN generations g ON g.id = u.id
        JOIN accounts a ON a.id = g.account_id
    WHERE u.status = 'succeeded'
    ON CONFLICT DO NOTHING;

    RETURN QUERY
    WITH settled AS ("""

MUTATIONS: Mapping[str, Mutation] = {
    mutation.name: mutation
    for mutation in (
        _in_function("a settlement is not fenced", "settle_generations_v1", (_FENCED, "")),
        _in_function(
            "the charge comes before the guard",
            "settle_generations_v1",
            ("    RETURN QUERY\n    WITH settled AS (", _CHARGE_FIRST),
            (
                "        ORDER BY m.n, m.kind\n    ),",
                "        ORDER BY m.n, m.kind ON CONFLICT DO NOTHING\n    ),",
            ),
        ),
        _in_function(
            "the outbox is forgotten where a generation is canceled",
            "settle_generations_v1",
            (
                "WHERE EXISTS (SELECT FROM webhook_endpoints",
                "WHERE t.status <> 'canceled' AND EXISTS (SELECT FROM webhook_endpoints",
            ),
        ),
        _in_function(
            "the refund is forgotten where a generation is canceled",
            "settle_generations_v1",
            (
                "WHERE move.amount > 0",
                "WHERE move.amount > 0 AND (s.status <> 'canceled' OR move.kind <> 'refund')",
            ),
        ),
        _in_function(
            "what is final can be settled again",
            "settle_generations_v1",
            (
                "WHERE g.id = u.id AND g.status IN ('pending', 'processing')\n          " + _FENCED,
                "WHERE g.id = u.id",
            ),
        ),
        _in_function(
            "an idempotency key is not looked up",
            "admit_generations_v1",
            ("AND k.created_at > now() - interval '24 hours'", "AND false"),
        ),
        _in_function(
            "a plan admits one generation too many",
            "admit_generations_v1",
            ("running >= request.capacity", "running > request.capacity"),
        ),
        _in_function(
            "a delivery's result is not fenced",
            "record_webhooks_v1",
            ("AND d.worker_id = p_worker AND d.fence = u.fence", ""),
        ),
        _in_statement(
            "a claim takes what another holds", "_CLAIM", "AND worker_id IS NULL AND due_at", "AND due_at"
        ),
        _in_class("the lease is not checked before a purchase", Lease, "check", lambda _lease: None),
        _in_class("recovery buys again", Runner, "reconcile", _never_arrived),
        _in_class("a lost answer is taken for a yes", Admissions, "_find_out", _surely_accepted),
    )
}
