"""Stripe as it is seen from outside: its API over real HTTP on loopback, and events signed as its own are."""

import hmac
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

SECRET_KEY = "sk_test_emulated"
WEBHOOK_SECRET = "whsec_emulated"
DAY_S = 86_400


@dataclass
class StripeEmulator:
    """Customers, checkout and portal sessions, subscriptions and prices."""

    origin: str = ""
    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    prices: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Amount and currency by id."""
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Method, path and parameters, as they came."""
    down: bool = False
    """Whether every request fails."""
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _answered: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By idempotency key."""

    def id(self, prefix: str) -> str:
        """A new id."""
        return f"{prefix}_{next(self._numbers)}"

    # ------------------------------------------------------------------------------- the API

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request: of the API, or of a customer's browser."""
        if request.path.startswith(("/c/pay/", "/p/session/")):
            page = (
                "<!doctype html><html lang=en><title>Pay</title><link rel=icon href=data:,><h1>Pay here</h1>"
            )
            return web.Response(text=page, content_type="text/html")
        parameters = _nested(await request.text() if request.method == "POST" else request.query_string)
        self.requests.append((request.method, request.path, parameters))
        if request.headers.get("authorization") != f"Bearer {SECRET_KEY}":
            return _error(401, "Invalid API Key provided: sk_test_********", "invalid_request_error")
        if self.down:
            return _error(500, "An unknown error occurred", "api_error")
        again = request.headers.get("idempotency-key", "")
        if again in self._answered:
            return web.json_response(self._answered[again])
        made = self._answer(request.method, request.path, parameters)
        if made is None:
            return _error(404, "No such object", "invalid_request_error", "resource_missing")
        if again:
            self._answered[again] = made
        return web.json_response(made)

    def _answer(self, method: str, path: str, sent: dict[str, Any]) -> dict[str, Any] | None:
        if method == "POST" and path == "/v1/customers":
            made = {"id": self.id("cus"), "object": "customer", **sent}
            self.customers[made["id"]] = made
            return made
        if method == "POST" and path == "/v1/checkout/sessions":
            made = {"id": self.id("cs_test"), "object": "checkout.session", **sent}
            made["url"] = f"{self.origin}/c/pay/{made['id']}"
            self.sessions[made["id"]] = made
            return made
        if method == "POST" and path == "/v1/billing_portal/sessions":
            id = self.id("bps")
            url = f"{self.origin}/p/session/{id}"
            return {"id": id, "object": "billing_portal.session", "url": url, **sent}
        if method == "GET" and path.startswith("/v1/subscriptions/"):
            return self.subscriptions.get(path.rpartition("/")[2])
        if method == "GET" and path.startswith("/v1/prices/"):
            id = path.rpartition("/")[2]
            if id in self.prices:
                amount, currency = self.prices[id]
                return {
                    "id": id,
                    "object": "price",
                    "currency": currency,
                    "unit_amount": amount,
                    "active": True,
                }
        return None

    # ------------------------------------------------------------------------------- what customers do

    def pay(self, session_id: str, status: str = "paid") -> dict[str, Any]:
        """The session as it is once its customer is through with it."""
        session = self.sessions[session_id]
        return {
            **session,
            "payment_status": status,
            "status": "complete",
            "subscription": session.get("subscription"),
        }

    def subscribe(
        self, customer: str, price: str, status: str = "active", *, start: int = 1_777_600_000
    ) -> dict[str, Any]:
        """A subscription that stands so from now on."""
        id = self.id("sub")
        item = {
            "id": self.id("si"),
            "price": {"id": price, "object": "price"},
            "current_period_start": start,
            "current_period_end": start + 30 * DAY_S,
        }
        self.subscriptions[id] = {
            "id": id,
            "object": "subscription",
            "customer": customer,
            "status": status,
            "cancel_at_period_end": False,
            "cancel_at": None,
            "currency": "usd",
            "items": {"object": "list", "data": [item]},
            "metadata": {},
        }
        return self.subscriptions[id]

    def invoice(
        self, subscription: dict[str, Any], *, amount: int = 2900, proration: bool = False, price: str = ""
    ) -> dict[str, Any]:
        """A paid invoice of a subscription."""
        item = subscription["items"]["data"][0]
        line = {
            "id": self.id("il"),
            "object": "line_item",
            "amount": amount,
            "currency": "usd",
            "period": {"start": item["current_period_start"], "end": item["current_period_end"]},
            "parent": {
                "type": "subscription_item_details",
                "subscription_item_details": {"proration": proration, "subscription": subscription["id"]},
            },
            "pricing": {
                "type": "price_details",
                "price_details": {"price": price or item["price"]["id"], "product": "prod_1"},
            },
        }
        return {
            "id": self.id("in"),
            "object": "invoice",
            "customer": subscription["customer"],
            "status": "paid",
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": subscription["id"], "metadata": {}},
            },
            "lines": {"object": "list", "data": [line], "has_more": False},
        }

    def event(self, type: str, object: dict[str, Any]) -> bytes:
        """The body of an event about an object as it is now."""
        return json.dumps(
            {
                "id": self.id("evt"),
                "object": "event",
                "type": type,
                "api_version": "2026-10-28.endive",
                "created": int(time.time()),
                "livemode": False,
                "pending_webhooks": 1,
                "data": {"object": object},
            }
        ).encode()


def signed(body: bytes, *, secret: str = WEBHOOK_SECRET, at: float | None = None) -> dict[str, str]:
    """The headers of an event: the scheme of Stripe's reference, written here once more."""
    moment = int(time.time() if at is None else at)
    signature = hmac.new(secret.encode(), f"{moment}.".encode() + body, sha256).hexdigest()
    return {"stripe-signature": f"t={moment},v1={signature}", "content-type": "application/json"}


@asynccontextmanager
async def stripe_emulator() -> AsyncIterator[StripeEmulator]:
    """A running emulator."""
    emulator = StripeEmulator()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", emulator.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    emulator.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield emulator
    finally:
        await runner.cleanup()


def _error(status: int, message: str, type: str, code: str | None = None) -> web.Response:
    error = {"message": message, "type": type, "code": code}
    return web.json_response({"error": error}, status=status)


def _nested(text: str) -> dict[str, Any]:
    """A form whose names have brackets, `metadata[pack]` or `line_items[0][price]`, as a tree."""
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        *path, last = re.findall(r"[^\[\]]+", name)
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree
