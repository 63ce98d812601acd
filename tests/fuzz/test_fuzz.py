"""A slice of `make fuzz`, always the same one; and that the fuzz sees the faults it is there for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.e2e.system import running_system
from tests.effort import effort
from tests.fuzz.cases import make_case
from tests.fuzz.driver import Fuzz
from tests.fuzz.framing import Rest, owed_answers
from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.request import MISSING_ID, World, seeds
from tests.fuzz.session import fuzz
from tests.fuzz.target import SETTINGS

SLICE = effort(1000)
KEY = "bye_" + "k" * 40

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def world() -> World:
    """A world that no server knows."""
    return World(rich=KEY, small=KEY, others=[KEY], foreign_ids=[MISSING_ID], own_ids=[MISSING_ID])


async def test_mutated_streams_are_answered_or_refused_and_leave_the_process_as_it_was() -> None:
    async with running_system(SETTINGS) as system:
        up = await system.up()
        assert await up.stop() == 0
        run, _ = await fuzz(system, 4711, range(SLICE))
    assert not run.report.findings, str(run.report)
    assert run.report.cases == SLICE
    # It reached every layer: framing and firewall, keys, bodies, admission.
    reached = {name.partition(" ")[2] for name in run.report.answers}
    assert reached >= {
        "",
        "BSE1010",
        "BSE1002",
        "BSE1003",
        "BSE2001",
        "BSE2010",
        "BSE2014",
        "BSE1004",
        "BSE5002",
    }


def test_a_case_is_made_again_from_its_seed_and_number() -> None:
    for number in range(50):
        first, second = (make_case(7, number, seeds(), world()) for _ in range(2))
        assert first == second
    assert make_case(7, 1, seeds(), world()) != make_case(8, 1, seeds(), world())


def test_every_mutation_is_drawn() -> None:
    drawn = {name for number in range(3000) for name in make_case(1, number, seeds(), world()).mutations}
    assert set(MUTATIONS) <= drawn


@pytest.mark.parametrize(
    ("stream", "answers", "rest"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" * 3, 3, Rest.NOTHING),
        (b"GET / HTTP/1.0\r\n\r\n" * 3, 1, Rest.NOTHING),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET", 1, Rest.NOTHING),
        (b"GET / HTTP/1.1\r\n\r\nGET", 1, Rest.HEAD),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", 0, Rest.BODY),
        (b"GET / HTTP/1.1\r\n\r\n\x00", 1, Rest.GARBAGE),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", 0, Rest.GARBAGE),
    ],
)
def test_the_answers_that_a_stream_is_owed_are_counted(stream: bytes, answers: int, rest: Rest) -> None:
    owed = owed_answers(stream)
    assert (len(owed.methods), owed.rest) == (answers, rest)


def answer(status: int, body: bytes) -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nX-Request-Id: r\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def error(code: str, type: str, retryable: str = "false") -> bytes:
    """An error envelope."""
    parts = f'"code":"{code}","type":"{type}","message":"m","retryable":{retryable}'
    return f'{{"status":"error","request_id":"r","error":{{{parts}}}}}'.encode()


@asynccontextmanager
async def server(reply: bytes | None) -> AsyncIterator[int]:
    """Gives every connection this, whatever it asks; None keeps it waiting."""
    gone: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone.add(writer)
        await reader.read(1)
        if reply is not None:
            writer.write(reply)
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for writer in gone:
            writer.close()


@pytest.mark.parametrize(
    ("reply", "finding"),
    [
        (None, "neither answered nor closed"),
        (b"", "closed after 0 of 1 answers"),
        (b"SSH-2.0-x\r\n\r\n", "not a status line"),
        (answer(500, error("BSE5001", "internal_error")), "status 500"),
        (answer(503, error("BSE5002", "service_unavailable", "true")), "status 503"),
        (answer(400, error("BSE1234", "x")), "undocumented code"),
        (answer(404, error("BSE2001", "invalid_input")), "BSE2001 with status 404"),
        (answer(429, error("BSE1009", "concurrency_limit_exceeded", "true")), "429 without Retry-After"),
        (answer(400, error("BSE2001", "invalid_input").replace(b'"r"', b'"s"')), "request_id is not"),
        (answer(200, b'{"status":"success"'), "invalid JSON"),
        (answer(200, b'{"status":"success","request_id":"r"}'), "members of a success"),
        (answer(200, b"[]"), "no envelope"),
        (answer(200, b'{"a":1}') * 4, "4 answers to 1 requests"),
    ],
)
async def test_a_fault_of_the_server_is_a_finding_with_its_bytes(reply: bytes | None, finding: str) -> None:
    number = next(n for n in range(1000) if make_case(1, n, seeds(), world()).intact)
    async with server(reply) as port:
        run = Fuzz(port, 1, seeds(), world(), waits_s=0, patience_s=0.2)
        await run.run(range(number, number + 1))
    assert any(finding in found and KEY in found for found in run.report.findings), run.report.findings


async def test_a_success_where_two_parsers_could_disagree_is_a_finding() -> None:
    cases = (make_case(1, n, seeds(), world()) for n in range(1000))
    number = next(case.number for case in cases if case.refused and case.mutations == ("credentials",))
    success = b'{"status":"success","request_id":"r","message":"m","timestamp":"t","data":{}}'
    async with server(answer(200, success)) as port:
        run = Fuzz(port, 1, seeds(), world(), waits_s=0, patience_s=0.2)
        await run.run(range(number, number + 1))
    assert any("must be refused" in found for found in run.report.findings)
