"""The tree of errors: every documented code has a class, and an error tells what it knows."""

import pickle
import re
from collections.abc import Iterator

import httpx
import pytest
from tests.sdk.clients import ID, KINDS, Network, failure, generation, side, success

import babysea
from babysea import (
    APIError,
    BabySeaError,
    GenerationFailedError,
    ProviderError,
    RateLimitError,
    RetriesExhaustedError,
    _errors,
)
from babysea_server.errors import ERRORS

BY_CODE = {
    "AuthenticationError": "BSE1001 BSE1002",
    "InsufficientCreditsError": "BSE1004",
    "PermissionDeniedError": "BSE1003 BSE1007",
    "FirewallRejectedError": "BSE1010",
    "NotFoundError": "BSE1008 BSE2011 BSE3001",
    "ConflictError": "BSE2015 BSE2016 BSE3002 BSE3003",
    "InvalidInputError": "BSE2001 BSE2002 BSE2003 BSE2004 BSE2005 BSE2006 BSE2007 BSE2008 BSE2009 BSE2010 BSE2012 "
    "BSE2013 BSE2014 BSE4005",
    "RateLimitError": "BSE1005 BSE1006 BSE1009",
    "ServerError": "BSE4001 BSE4002 BSE4003 BSE4004 BSE4006 BSE4007 BSE4008 BSE4009 BSE4010 BSE4011 BSE5001 BSE5002 "
    "BSE5003 BSE5004",
}  # fmt: skip
CLASSES = {code: name for name, codes in BY_CODE.items() for code in codes.split()}


def test_every_code_of_the_server_has_exactly_one_class() -> None:
    assert len(CLASSES) == sum(len(codes.split()) for codes in BY_CODE.values())
    assert CLASSES.keys() == ERRORS.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", ERRORS)
async def test_an_error_answer_is_raised_as_its_class(kind: str, code: str) -> None:
    spec = ERRORS[code]
    network = Network(failure(spec.status, code, retryable=spec.retryable))
    with pytest.raises(APIError) as caught:
        await side(kind, network, max_retries=0).call("account")
    error = caught.value
    assert type(error) is getattr(babysea, CLASSES[code])
    assert (error.code, error.status, error.retryable) == (code, spec.status, spec.retryable)
    assert (error.type, error.message, error.request_id) == ("a_type", "It is so.", "req_2")
    assert str(error) == f"It is so. ({code}, request req_2)"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_tells_its_details_and_what_providers_said(kind: str) -> None:
    one = {"provider": "fal", "code": "BSE4001", "type": "t", "message": "m", "retryable": True}
    answer = failure(502, "BSE4006", details={"field": "x"}, provider_errors=[one, "?", {}])
    with pytest.raises(APIError) as caught:
        await side(kind, Network(answer)).call("account")
    assert caught.value.details == {"field": "x"}
    assert caught.value.provider_errors[0] == ProviderError("fal", "BSE4001", "t", "m", True)
    assert len(caught.value.provider_errors) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [
        {"code": "BSE2001"},
        {"code": "BSE2001", "message": 5, "details": [], "provider_errors": {}, "retryable": "yes"},
    ],
)
async def test_an_incomplete_error_is_still_one(kind: str, error: dict[str, object]) -> None:
    network = Network(httpx.Response(400, json={"status": "error", "error": error}))
    with pytest.raises(babysea.InvalidInputError) as caught:
        await side(kind, network).call("account")
    assert (caught.value.code, caught.value.retryable, caught.value.details) == ("BSE2001", False, {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b"null", b'{"error": 5}', b"<html>"])
async def test_whatever_a_body_holds_it_is_one_of_our_errors(kind: str, body: bytes) -> None:
    for status in (200, 400, 500):
        with pytest.raises(BabySeaError) as caught:
            await side(kind, Network(httpx.Response(status, content=body))).call("account")
        assert caught.value.status == status


def _subclasses(kind: type[BabySeaError]) -> Iterator[type[BabySeaError]]:
    for one in kind.__subclasses__():
        if one.__module__ == _errors.__name__ and RetriesExhaustedError not in one.__bases__:
            yield one
            yield from _subclasses(one)


def test_the_drawing_shows_the_tree_as_it_is() -> None:
    drawn: list[tuple[str, str]] = []
    branch: list[tuple[int, str]] = [(4, "BabySeaError")]
    for line in str(_errors.__doc__).splitlines():
        if match := re.fullmatch(r"([ |]+)\+- (\w+)\b.*", line):
            depth, name = len(match[1]), match[2]
            while branch[-1][0] >= depth:
                branch.pop()
            drawn.append((branch[-1][1], name))
            branch.append((depth, name))
    actual = [(kind.__bases__[0].__name__, kind.__name__) for kind in _subclasses(BabySeaError)]
    assert sorted(drawn) == sorted(actual)
    assert all(name in babysea.__all__ for _, name in drawn)


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_travel_between_processes(kind: str) -> None:
    network = Network(*(failure(429, "BSE1005", retryable=True) for _ in range(3)))
    with pytest.raises(RateLimitError) as limited:
        await side(kind, network).call("account")
    with pytest.raises(GenerationFailedError) as failed:
        await side(kind, Network(success(generation("failed")))).call("wait_for_generation", ID)

    copy = pickle.loads(pickle.dumps(limited.value))
    assert isinstance(copy, RateLimitError)
    assert isinstance(copy, RetriesExhaustedError)
    assert (str(copy), copy.attempts) == (str(limited.value), 3)
    another = pickle.loads(pickle.dumps(failed.value))
    assert (type(another), another.generation) == (GenerationFailedError, failed.value.generation)
