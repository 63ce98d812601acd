"""The gateway: every check in its order, and headers, limits and masking on every answer."""

import asyncio
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from tests.contract.asgi import HOST, JSON, UUID, Answer, Exchange, ask, chunked, http_scope
from tests.contract.conftest import FakeKeys, TurnedClock

from babysea_server.contract.gateway import MAX_BODY_BYTES, Gateway
from babysea_server.db.pool import DatabaseUnavailableError
from babysea_server.errors import (
    ALL_PROVIDERS_FAILED,
    AUTH_RATE_LIMITED,
    CONCURRENCY_LIMIT_EXCEEDED,
    GENERATION_NOT_FOUND,
    RATE_LIMIT_EXCEEDED,
    ApiError,
)
from babysea_server.kit.calls import Call, Principal, Reply

KEY = ("authorization", "Bearer bye_good")
GENERATE = "/v1/generate/image/bfl/flux"
MakeGateway = Callable[..., Gateway]


def answering(result: Reply | Exception) -> Callable[[Call], Any]:
    async def handler(call: Call) -> Reply:
        if isinstance(result, Exception):
            raise result
        return result

    return handler


async def hanging(call: Call) -> Reply:
    await asyncio.Event().wait()
    return Reply({})


def durations(answer: Answer) -> dict[str, float]:
    parts = answer.headers["server-timing"].split(", ")
    return {name: float(value) for name, value in (part.split(";dur=") for part in parts)}


async def test_a_call_reaches_its_handler_and_is_answered_in_the_envelope(make_gateway: MakeGateway) -> None:
    answer = await ask(make_gateway(), http_scope(target="/v1/usage?days=7", headers=[KEY]))
    assert answer.status == 200
    assert answer.json == {
        "status": "success",
        "request_id": answer.headers["x-request-id"],
        "message": "Usage retrieved successfully",
        "timestamp": "2026-04-28T12:00:00.000Z",
        "data": {
            "operation": "usage",
            "region": "us",
            "path": {},
            "query": {"days": 7},
            "size": 0,
            "origin": f"https://{HOST}",
        },
    }
    assert re.fullmatch("req_[0-9a-f]{24}", answer.headers["x-request-id"])
    assert set(answer.headers) == {
        *("content-type", "content-length", "cache-control", "x-request-id"),
        "server-timing",
    }
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["cache-control"] == "no-store"


async def test_the_key_is_looked_up_with_region_header_and_address(
    make_gateway: MakeGateway, keys: FakeKeys
) -> None:
    await ask(make_gateway(), http_scope(headers=[KEY], host="api.jp.example.com"))
    await ask(make_gateway(), {**http_scope(), "client": None})
    assert keys.calls == [("jp", "Bearer bye_good", "203.0.113.7"), ("us", None, "")]


async def test_reply_headers_and_totals_are_sent(make_gateway: MakeGateway) -> None:
    reply = Reply({}, beside={"total": 3}, headers={"Idempotency-Replayed": "true"})
    answer = await ask(make_gateway(answering(reply)), http_scope(headers=[KEY]))
    assert answer.json["total"] == 3
    assert answer.headers["idempotency-replayed"] == "true"


class TestOrderOfChecks:
    """Each request fails two neighbouring checks; the earlier one answers."""

    async def test_draining_before_the_firewall(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        gateway.draining = True
        answer = await ask(gateway, http_scope(target="/nowhere"))
        assert (answer.status, answer.code) == (503, "BSE5002")
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")

    async def test_firewall_before_the_key(self, make_gateway: MakeGateway, keys: FakeKeys) -> None:
        answer = await ask(make_gateway(), http_scope(target="/nowhere"))
        assert (answer.status, answer.code) == (403, "BSE1010")
        assert answer.json["error"]["details"]["rule"] == "unknown_path"
        assert keys.calls == []
        assert "server-timing" not in answer.headers

    async def test_key_before_the_scope_and_the_body(self, make_gateway: MakeGateway, keys: FakeKeys) -> None:
        keys.scopes = frozenset()
        exchange = Exchange(chunked(b"{}"))
        await make_gateway()(http_scope("POST", GENERATE, [JSON]), exchange.receive, exchange.send)
        assert (exchange.answer.status, exchange.answer.code, exchange.taken) == (401, "BSE1001", 0)
        assert exchange.answer.headers["www-authenticate"] == "Bearer"
        assert "server-timing" not in exchange.answer.headers

    async def test_scope_before_the_body(self, make_gateway: MakeGateway, keys: FakeKeys) -> None:
        keys.scopes = frozenset({"library:read", "account:read"})
        exchange = Exchange(chunked(b"x" * (MAX_BODY_BYTES + 1)))
        headers = [KEY, JSON, ("content-length", str(MAX_BODY_BYTES + 1))]
        await make_gateway()(http_scope("POST", GENERATE, headers), exchange.receive, exchange.send)
        assert (exchange.answer.status, exchange.answer.code, exchange.taken) == (403, "BSE1003", 0)
        assert exchange.answer.json["error"]["details"] == {
            "required": "generation:write",
            "granted": ["account:read", "library:read"],
        }

    async def test_body_before_the_operation(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway(answering(ApiError(GENERATION_NOT_FOUND, "No.")))
        answer = await ask(gateway, http_scope("POST", GENERATE, [KEY, JSON]), b"x" * (MAX_BODY_BYTES + 1))
        assert (answer.status, answer.code) == (413, "BSE2010")

    async def test_an_operation_without_handler_is_unavailable(self, make_gateway: MakeGateway) -> None:
        answer = await ask(make_gateway(handlers={}), http_scope(headers=[KEY]))
        assert (answer.status, answer.code) == (503, "BSE5002")
        assert "not available yet" in answer.json["error"]["message"]


class TestBody:
    @pytest.mark.parametrize(
        "chunks", [(b"",), (b"{}",), (b"{", b"", b"}"), (b"x" * MAX_BODY_BYTES,), (b"x" * 51200,) * 2]
    )
    async def test_bodies_up_to_the_limit_are_handed_over(
        self, make_gateway: MakeGateway, chunks: tuple[bytes, ...]
    ) -> None:
        bodies: list[bytes] = []

        async def handler(call: Call) -> Reply:
            bodies.append(call.body)
            return Reply({})

        answer = await ask(make_gateway(handler), http_scope("POST", GENERATE, [KEY, JSON]), *chunks)
        assert (answer.status, bodies) == (200, [b"".join(chunks)])

    @pytest.mark.parametrize("length", [MAX_BODY_BYTES + 1, 10**12])
    async def test_a_declared_length_over_the_limit_is_refused_unread(
        self, make_gateway: MakeGateway, length: int
    ) -> None:
        exchange = Exchange(chunked(b"x"))
        headers = [KEY, JSON, ("content-length", str(length))]
        await make_gateway()(http_scope("POST", GENERATE, headers), exchange.receive, exchange.send)
        answer = exchange.answer
        assert (answer.status, answer.code, exchange.taken) == (413, "BSE2010", 0)
        assert answer.json["error"]["details"] == {"max_bytes": 102400}
        assert "connection" not in answer.headers  # closing would lose the answer of a client still writing

    async def test_reading_stops_at_the_limit(self, make_gateway: MakeGateway) -> None:
        exchange = Exchange(chunked(*[b"x" * 65536] * 100))
        headers = [KEY, JSON, ("transfer-encoding", "chunked")]
        await make_gateway()(http_scope("POST", GENERATE, headers), exchange.receive, exchange.send)
        assert (exchange.answer.status, exchange.taken) == (413, 2)

    async def test_a_length_that_lies_is_still_limited(self, make_gateway: MakeGateway) -> None:
        headers = [KEY, JSON, ("content-length", "2")]
        answer = await ask(make_gateway(), http_scope("POST", GENERATE, headers), b"x" * (MAX_BODY_BYTES + 1))
        assert answer.code == "BSE2010"

    async def test_a_client_that_leaves_while_sending_is_not_answered(
        self, make_gateway: MakeGateway
    ) -> None:
        exchange = Exchange([{"type": "http.request", "body": b"{", "more_body": True}])
        await make_gateway()(http_scope("POST", GENERATE, [KEY, JSON]), exchange.receive, exchange.send)
        assert exchange.sent == []

    async def test_operations_without_a_body_read_none(self, make_gateway: MakeGateway) -> None:
        exchange = Exchange(chunked(b"x"))
        await make_gateway()(http_scope(headers=[KEY]), exchange.receive, exchange.send)
        assert (exchange.answer.status, exchange.taken) == (200, 0)


class TestFailures:
    async def test_errors_of_operations_are_answered_as_they_are(self, make_gateway: MakeGateway) -> None:
        told = {
            "provider": "fal",
            "code": "BSE4001",
            "type": "provider_error",
            "message": "x",
            "retryable": True,
        }
        error = ApiError(
            ALL_PROVIDERS_FAILED, "All failed.", provider_errors=[told], headers={"Retry-After": "7"}
        )
        answer = await ask(make_gateway(answering(error)), http_scope(headers=[KEY]))
        assert (answer.status, answer.headers["retry-after"]) == (502, "7")
        assert answer.json["error"]["provider_errors"] == [told]
        assert "server-timing" in answer.headers

    @pytest.mark.parametrize("secret", ["bye_s3cret-key"])
    @pytest.mark.parametrize(
        "kind", [RuntimeError, ValueError, KeyError, TimeoutError, OSError, ExceptionGroup]
    )
    async def test_unexpected_exceptions_are_masked_everywhere(
        self, make_gateway: MakeGateway, kind: type[Exception], secret: str
    ) -> None:
        error = ExceptionGroup(secret, [ValueError(secret)]) if kind is ExceptionGroup else kind(secret)
        scope = http_scope("POST", GENERATE, [KEY, JSON])
        with capture_logs(processors=[merge_contextvars]) as logs:
            answer = await ask(make_gateway(answering(error)), scope, b'{"generation_prompt":"private"}')
        assert (answer.status, answer.code) == (500, "BSE5001")
        log, served = logs
        assert {log["request_id"], served["request_id"]} == {answer.headers["x-request-id"]}
        assert (served["event"], served["status"]) == ("request_served", 500)
        assert log["operation"] == "generate"
        assert (log["error"], log["log_level"]) == (kind.__name__, "error")
        assert any("test_gateway.py" in line for line in log["trace"])
        for text in (answer.body.decode(), repr(answer.headers), repr(logs)):
            assert secret not in text
            assert "bye_good" not in text
            assert "private" not in text

    async def test_a_failure_to_authenticate_is_masked_too(self, make_gateway: MakeGateway) -> None:
        async def broken(
            region: str, authorization: str | None, client: str, account_id: uuid.UUID | None
        ) -> Principal:
            raise ConnectionError("postgres://user:password@db")

        with capture_logs(processors=[merge_contextvars]) as logs:
            answer = await ask(make_gateway(authenticate=broken), http_scope(headers=[KEY]))
        assert answer.code == "BSE5001"
        assert "password" not in repr(logs)
        assert "server-timing" not in answer.headers

    @pytest.mark.parametrize(
        "broken",
        [
            Reply(object()),
            Reply({}, headers={"X-Name": "€"}),
            ApiError(GENERATION_NOT_FOUND, "No.", details={"field": object()}),
            ApiError(ALL_PROVIDERS_FAILED, "No.", provider_errors=[{"provider": "fal"}]),
            ApiError(RATE_LIMIT_EXCEEDED, "No.", details={"retry_after_seconds": "soon"}),
        ],
    )
    async def test_what_cannot_be_sent_is_an_internal_error(
        self, make_gateway: MakeGateway, broken: Reply | ApiError
    ) -> None:
        with capture_logs():
            answer = await ask(make_gateway(answering(broken)), http_scope(headers=[KEY]))
        assert (answer.status, answer.code) == (500, "BSE5001")

    @pytest.mark.parametrize(
        ("error", "seconds"),
        [
            (ApiError(RATE_LIMIT_EXCEEDED, "No.", details={"retry_after_seconds": 12}), "12"),
            (ApiError(RATE_LIMIT_EXCEEDED, "No.", details={"retry_after_seconds": 0}), "1"),
            (ApiError(AUTH_RATE_LIMITED, "No."), "1"),
            (ApiError(CONCURRENCY_LIMIT_EXCEEDED, "No.", headers={"Retry-After": "3"}), "3"),
        ],
    )
    async def test_429_always_says_when_to_come_back(
        self, make_gateway: MakeGateway, error: ApiError, seconds: str
    ) -> None:
        answer = await ask(make_gateway(answering(error)), http_scope(headers=[KEY]))
        assert (answer.status, answer.headers["retry-after"]) == (429, seconds)

    async def test_a_client_that_leaves_while_answered_is_no_failure(self, make_gateway: MakeGateway) -> None:
        async def gone(message: object) -> None:
            raise BrokenPipeError

        await make_gateway()(http_scope(headers=[KEY]), Exchange([]).receive, gone)


class TestDeadline:
    @pytest.mark.parametrize(
        ("method", "target", "code"),
        [("GET", f"/v1/content/{UUID}", "BSE5002"), ("DELETE", f"/v1/content/{UUID}", "BSE5001")],
    )
    async def test_a_late_operation_is_repeatable_only_when_it_reads(
        self, make_gateway: MakeGateway, method: str, target: str, code: str
    ) -> None:
        gateway = make_gateway(hanging, deadline_seconds=0)
        answer = await ask(gateway, http_scope(method, target, [KEY]))
        assert answer.code == code
        assert answer.json["error"]["retryable"] is (code == "BSE5002")

    async def test_a_body_that_does_not_come_ends_the_request(self, make_gateway: MakeGateway) -> None:
        exchange = Exchange([])

        async def never() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        gateway = make_gateway(deadline_seconds=0)
        await gateway(http_scope("POST", GENERATE, [KEY, JSON]), never, exchange.send)
        assert exchange.answer.code == "BSE5002"
        assert exchange.answer.headers["connection"] == "close"

    async def test_accepting_a_generation_is_not_cut_off(self, make_gateway: MakeGateway) -> None:
        async def slow(call: Call) -> Reply:
            for _ in range(20):
                await asyncio.sleep(0)
            return Reply({})

        gateway = make_gateway(slow, deadline_seconds=0)
        answer = await ask(gateway, http_scope("POST", GENERATE, [KEY, JSON]), b"{}")
        assert answer.status == 200


class TestServerTiming:
    async def test_phases_and_total_are_told_in_milliseconds(
        self, make_gateway: MakeGateway, keys: FakeKeys, clock: TurnedClock
    ) -> None:
        async def slow_keys(
            region: str, authorization: str | None, client: str, account_id: uuid.UUID | None
        ) -> Principal:
            clock.seconds += 0.002
            return await keys(region, authorization, client, account_id)

        async def handler(call: Call) -> Reply:
            clock.seconds += 0.003
            call.timings["db"] = 1.5
            return Reply({})

        gateway = make_gateway(handler, authenticate=slow_keys)
        answer = await ask(gateway, http_scope(headers=[KEY]))
        assert durations(answer) == {"validate": 0.0, "auth": 2.0, "db": 1.5, "total": 5.0}

    async def test_waiting_for_the_body_is_not_our_share(
        self, make_gateway: MakeGateway, clock: TurnedClock
    ) -> None:
        exchange = Exchange(chunked(b"{}"))

        async def slowly() -> Any:
            clock.seconds += 5
            return await exchange.receive()

        await make_gateway()(http_scope("POST", GENERATE, [KEY, JSON]), slowly, exchange.send)
        assert durations(exchange.answer)["total"] == 0.0


class TestCors:
    ORIGIN = ("origin", "https://app.example")

    @pytest.mark.parametrize("target", ["/v1/status", GENERATE, "/v1/nowhere"])
    async def test_preflight_grants_what_clients_send(
        self, make_gateway: MakeGateway, keys: FakeKeys, target: str
    ) -> None:
        headers = [self.ORIGIN, ("access-control-request-method", "POST")]
        answer = await ask(make_gateway(), http_scope("OPTIONS", target, headers))
        assert (answer.status, answer.body, keys.calls) == (204, b"", [])
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE"
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        assert {"Authorization", "Content-Type", "Idempotency-Key"} < set(allowed)
        assert len([name for name in allowed if name.startswith("X-BabySea-SDK-")]) == 4
        assert int(answer.headers["access-control-max-age"]) > 0
        assert "access-control-allow-credentials" not in answer.headers
        assert "x-request-id" in answer.headers

    async def test_options_that_are_no_preflight_are_rejected(self, make_gateway: MakeGateway) -> None:
        for headers in ([], [self.ORIGIN], [("access-control-request-method", "GET")]):
            answer = await ask(make_gateway(), http_scope("OPTIONS", "/v1/status", headers))
            assert (answer.status, answer.code) == (403, "BSE1010")

    @pytest.mark.parametrize("headers", [[KEY], [], [KEY, KEY]])
    async def test_every_answer_to_a_page_exposes_the_headers(
        self, make_gateway: MakeGateway, headers: list[tuple[str, str]]
    ) -> None:
        answer = await ask(make_gateway(), http_scope(headers=[*headers, self.ORIGIN]))
        assert answer.headers["access-control-allow-origin"] == "*"
        assert set(answer.headers["access-control-expose-headers"].split(", ")) == {
            *("X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
            *("Retry-After", "Idempotency-Replayed", "Server-Timing"),
        }
        assert "access-control-allow-credentials" not in answer.headers


async def test_websockets_are_closed(make_gateway: MakeGateway) -> None:
    exchange = Exchange([])
    await make_gateway()({"type": "websocket"}, exchange.receive, exchange.send)
    assert exchange.sent == [{"type": "websocket.close", "code": 1008}]


async def test_other_protocols_are_a_fault_of_the_composition(make_gateway: MakeGateway) -> None:
    exchange = Exchange([])
    with pytest.raises(ValueError, match="serves HTTP"):
        await make_gateway()({"type": "lifespan"}, exchange.receive, exchange.send)


async def test_an_error_with_its_own_retry_after_is_answered_with_that_one_only(
    make_gateway: MakeGateway,
) -> None:
    busy = ApiError(CONCURRENCY_LIMIT_EXCEEDED, "busy", headers={"retry-after": "7"})
    answer = await ask(make_gateway(answering(busy)), http_scope(target="/v1/usage", headers=[KEY]))
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("method", "target", "sent", "code"),
    [
        ("GET", "/v1/usage", True, "BSE5002"),
        ("GET", "/v1/usage", False, "BSE5002"),
        ("DELETE", f"/v1/content/{UUID}", False, "BSE5002"),
        ("DELETE", f"/v1/content/{UUID}", True, "BSE5001"),
    ],
)
async def test_a_database_that_is_away_is_retryable_only_when_nothing_can_have_changed(
    make_gateway: MakeGateway, method: str, target: str, sent: bool, code: str
) -> None:
    gateway = make_gateway(answering(DatabaseUnavailableError("away", sent=sent)))
    answer = await ask(gateway, http_scope(method, target, headers=[KEY]))
    assert answer.code == code
