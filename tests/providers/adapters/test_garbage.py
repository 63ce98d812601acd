"""All adapters: whatever a provider answers, reading it raises nothing and says something; and each is whole."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.effort import effort
from tests.emulators.all import EMULATORS
from tests.emulators.kit import CALLBACKS, Misbehavior, running
from tests.providers.adapters.admissible import jobs, models_of
from tests.providers.profiles.all import PROFILES
from tests.providers.profiles.kit import Case, Outcome
from tests.support import ManualClock

from babysea_server.catalog.normalise import normalise
from babysea_server.catalog.types import Model, Traits
from babysea_server.errors import ERRORS
from babysea_server.kit.connections import Allowance
from babysea_server.providers.adapters import adapters
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Callback,
    Check,
    Failure,
    Finished,
    Job,
    Look,
    NotFound,
    Provider,
    Refused,
    Request,
    Running,
    Transport,
    Unclear,
)
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner
from babysea_server.settings import ProviderSettings

ADAPTERS = adapters()
IDS = sorted(ADAPTERS)
CALLBACK_URL = "https://cp.example/hooks/0198f2c0?token=t"
ATTEMPT = UUID("0198f2c0-0000-7000-8000-00000000beef")


# ------------------------------------------------------------------------------- good answers, to be spoilt


@dataclass
class Recorded:
    """One provider as it behaves when all is well: what it was asked about, and everything it answered."""

    provider: Provider
    jobs: list[Job] = field(default_factory=list)
    tickets: list[Accepted] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


class Recorder:
    """A transport that keeps the answers."""

    def __init__(self, inner: Transport, answers: list[Answer]) -> None:
        self._inner = inner
        self._answers = answers

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        answer = await self._inner.send(request, timeout_s=timeout_s, body_max=body_max)
        self._answers.append(answer)
        return answer

    async def close(self) -> None:
        await self._inner.close()


def job_of(provider: str, case: Case) -> Job:
    model = models_of(provider)[case.model]
    body = {"generation_prompt": "a quiet harbour", **case.inputs}
    inputs = normalise(model, {name: value for name, value in body.items() if name in model.fields}).inputs
    return Job(ATTEMPT, provider, model, inputs, timeout_s=120.0)


async def _record(id: str) -> Recorded:
    async with running(PROFILES[id].emulator()) as emulator:
        allowed = [Allowance.of(emulator.origin)]
        provider = ADAPTERS[id](ProviderSettings(**emulator.settings()))
        found = Recorded(provider)
        route = Route(
            provider, Recorder(HttpTransport(allowed=allowed), found.answers), FileTransport(allowed=allowed)
        )
        calls = Runner(Registry({id: route}), ManualClock())
        for case in filter(None, (PROFILES[id].image, PROFILES[id].video)):
            job = job_of(id, case)
            found.jobs.append(job)
            ticket = await calls.submit(job)
            if isinstance(ticket, Accepted):
                found.tickets.append(ticket)
                while isinstance(await calls.poll(job, ticket), Running):
                    pass
                await calls.cancel(job, ticket)
        await calls.callback_keys(id)
        await calls.check(id)
        await calls.close()
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def recorded() -> AsyncIterator[Mapping[str, Recorded]]:
    """Every provider's good answers."""
    yield {id: await _record(id) for id in IDS if id in PROFILES}


# ------------------------------------------------------------------------------- garbage

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["succeeded", "failed", "COMPLETED", "Ready", "SUCCESS", "running", "https://x.example/a", "\0"]
    )
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_STATUSES = st.sampled_from(
    [200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 409, 422, 429, 500, 503, 504, 524]
) | (st.integers(100, 599))
_ODD = st.sampled_from(["", "application/json", "image/png", "text/plain", "wait=5", "\ud800", "9" * 400])
_HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "retry-after", "location", "preference-applied", "x-fal-error-type"]),
    _ODD | st.text(max_size=20),
    max_size=3,
)


def _encoded(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key in (
        document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    ):
        yield from _paths(document[key], (*path, key))


def _changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at one place; where that is `...`, with nothing there."""
    if not path:
        return None if value is ... else value
    key, *rest = path
    copy = dict(document) if isinstance(document, dict) else list(document)
    if not rest and value is ...:
        del copy[key]
    else:
        copy[key] = _changed(document[key], tuple(rest), value)
    return copy


@st.composite
def spoilt(draw: st.DrawFn, answers: list[Answer]) -> Answer:
    """A good answer in which something is not as it should be."""
    good = draw(st.sampled_from(answers))
    status = draw(st.just(good.status) | _STATUSES)
    headers = draw(st.just(dict(good.headers)) | _HEADERS)
    try:
        document = json.loads(good.body)
    except ValueError:
        document = {}
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_paths(document))))
        document = _changed(document, path, draw(_JSON | st.just(...)))
    body = _encoded(document)
    cut = draw(st.none() | st.integers(0, len(body)))
    return Answer(status, headers, body if cut is None else body[:cut])


def garbage(answers: list[Answer]) -> st.SearchStrategy[Answer]:
    """Any answer at all."""
    bodies = (
        st.binary(max_size=60)
        | _JSON.map(_encoded)
        | st.sampled_from([b"[" * 100_000, b'{"a":1e999}', b"\xff"])
    )
    anything = st.builds(Answer, _STATUSES, _HEADERS, bodies)
    return anything | spoilt(answers) if answers else anything


# ------------------------------------------------------------------------------- what reading may say


def overrides(provider: Provider, method: str) -> bool:
    return getattr(type(provider), method) is not getattr(Provider, method)


def is_sound(read: object) -> bool:
    """Whether a read value is one of those documented, with nothing in it that could not be kept."""
    match read:
        case Accepted():
            json.dumps(read.state).encode()
            return bool(read.upstream_id.encode()) and "\0" not in read.upstream_id and read.poll_after_s >= 0
        case Running():
            return read.poll_after_s is None or read.poll_after_s >= 0
        case Finished():
            told = [read.cost_micro is None or type(read.cost_micro) is int]
            told += [read.predict_seconds is None or isinstance(read.predict_seconds, int | float)]
            told += [isinstance(output.url, str) or isinstance(output.data, bytes) for output in read.outputs]
            return all(told) and (read.upstream_id is None or isinstance(read.upstream_id, str))
        case Refused():
            told = [isinstance(read.failure, Failure), read.code is None or read.code in CODES]
            told += [len(read.message.encode()) <= 4000, "\0" not in read.message]
            told += [read.retry_after_s is None or 0 <= read.retry_after_s <= 86_400]
            return all(told) and (read.cost_micro is None or type(read.cost_micro) is int)
        case Look():
            return isinstance(read.request, Request)
    return False


CODES = set(ERRORS)
SUBMIT = (Accepted, Finished, Refused)
POLL = (Running, Look, Finished, Refused)
LOOK = (Running, Finished, Refused)


def read_everything(provider: Provider, job: Job, ticket: Accepted, answer: Answer) -> None:
    submit = provider.read_submit(job, answer)
    assert isinstance(submit, SUBMIT)
    assert is_sound(submit), submit
    tickets = [ticket] if overrides(provider, "read_poll") else []
    if isinstance(submit, Accepted):
        assert overrides(provider, "read_poll"), "it accepts a job that nobody can ask about"
        assert isinstance(provider.build_poll(job, submit), Request)
        cancel = provider.build_cancel(job, submit)
        assert cancel is None or isinstance(cancel, Request)
        tickets.append(submit)
    for asked in tickets:
        poll = provider.read_poll(job, asked, answer)
        assert isinstance(poll, POLL)
        assert is_sound(poll), poll
        if overrides(provider, "read_look"):
            look = provider.read_look(job, asked, answer)
            assert isinstance(look, LOOK)
            assert is_sound(look), look
        else:
            assert not isinstance(poll, Look)
    assert isinstance(provider.read_cancel(job, answer), bool)
    reconciled = provider.read_reconcile(job, answer)
    assert isinstance(reconciled, Accepted | NotFound | Unclear)
    assert not isinstance(reconciled, Accepted) or is_sound(reconciled)
    keys = provider.read_keys(answer)
    assert isinstance(keys, tuple)
    assert all(isinstance(key, bytes) for key in keys)
    for known in (keys, (b"", b"a key")):
        verified = provider.verify_callback(Callback(answer.headers, answer.body, 1614265330.0), known)
        assert isinstance(verified, bool)
    check = provider.read_check(answer)
    assert isinstance(check, Check)
    assert isinstance(check.ok, bool)
    assert isinstance(check.message, str)


@pytest.mark.parametrize("id", IDS)
@given(data=st.data())
@settings(
    max_examples=effort(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_no_answer_breaks_the_reading(id: str, recorded: Mapping[str, Recorded], data: st.DataObject) -> None:
    found = recorded[id]
    job = data.draw(st.sampled_from(found.jobs))
    ticket = data.draw(st.sampled_from([*found.tickets, Accepted("a-job"), Accepted("", {"poll": 7})]))
    read_everything(found.provider, job, ticket, data.draw(garbage(found.answers)))


@pytest.mark.parametrize("id", IDS)
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["webhook-id", "webhook-timestamp", "webhook-signature"]
            + [f"x-fal-webhook-{name}" for name in ("request-id", "user-id", "timestamp", "signature")]
        ),
        st.sampled_from(["", "v1,", "v1,AAAA", "00", "zz", "1614265330", "\ud800", "ü"])
        | st.text(max_size=30),
    ),
    body=st.binary(max_size=30),
    keys=st.lists(st.binary(max_size=40), max_size=3),
)
@example(headers={}, body=b"", keys=[])
@settings(max_examples=effort(25))
def test_no_callback_breaks_its_verification(
    id: str, recorded: Mapping[str, Recorded], headers: dict[str, str], body: bytes, keys: list[bytes]
) -> None:
    provider = recorded[id].provider
    verified = provider.verify_callback(Callback(headers, body, 1614265330.0), keys)
    assert isinstance(verified, bool)
    assert provider.traits.verification is None or not verified


@pytest.mark.parametrize("id", IDS)
def test_good_answers_were_there_to_be_spoilt(id: str, recorded: Mapping[str, Recorded]) -> None:
    found = recorded[id]
    assert found.jobs
    assert found.answers
    for job in found.jobs:
        for ticket in (*found.tickets, Accepted("a-job")):
            for answer in found.answers:
                read_everything(found.provider, job, ticket, answer)


# ------------------------------------------------------------------------------- each is whole


@pytest.mark.parametrize("id", IDS)
def test_an_adapter_describes_itself(id: str) -> None:
    adapter = ADAPTERS[id]
    assert adapter.name == id
    assert isinstance(adapter.traits, Traits)
    assert adapter.__doc__
    assert set(adapter.needs) <= set(ProviderSettings.__struct_fields__)
    assert adapter.default_base is not None or "base_url" in adapter.needs
    assert adapter.default_base is None or not adapter.default_base.endswith("/")
    assert all("/" not in host and not host.startswith(".") for host in adapter.hosts)


@pytest.mark.parametrize("id", IDS)
def test_an_adapter_has_an_emulator_and_a_profile_that_leaves_nothing_out(id: str) -> None:
    assert EMULATORS[id].provider == id
    profile = PROFILES[id]
    assert profile.emulator.provider == id
    assert profile.image or profile.video
    assert set(profile.outcomes) == set(Misbehavior)
    for word, outcome in profile.outcomes.items():
        assert isinstance(outcome, Outcome) or len(outcome) > 15, f"{word}: a reason is a sentence"
        calls_back = ADAPTERS[id].traits.delivery == "webhook_with_polling"
        assert calls_back or word not in CALLBACKS or isinstance(outcome, str), word
        if isinstance(outcome, Outcome):
            assert outcome.failure is None or outcome.failure in set(Failure), word
            assert outcome.code is None or outcome.code in CODES, word


@pytest.mark.parametrize("id", IDS)
def test_an_adapter_does_what_its_traits_say(id: str, recorded: Mapping[str, Recorded]) -> None:
    found = recorded[id]
    provider, traits = found.provider, found.provider.traits
    assert overrides(provider, "read_poll") == overrides(provider, "build_poll")
    assert traits.delivery == "synchronous" or overrides(provider, "build_poll")
    assert (traits.cancel is not None) <= overrides(provider, "build_cancel")
    assert overrides(provider, "read_cancel") <= overrides(provider, "build_cancel")
    assert overrides(provider, "build_reconcile") == overrides(provider, "read_reconcile")
    assert (traits.verification is not None) <= overrides(provider, "verify_callback")
    for job in found.jobs:
        if provider.input_files(job) or provider.build_uploads(job):
            continue
        called = provider.build_submit(replace(job, callback_url=CALLBACK_URL))
        told = called.url + (called.body or b"").decode("utf-8", "replace")
        spellings = {CALLBACK_URL, quote(CALLBACK_URL, safe=""), json.dumps(CALLBACK_URL)[1:-1]}
        assert any(spelling in told for spelling in spellings) == provider.calls_back(job)


def pairs() -> Iterator[Any]:
    for id in IDS:
        for model in models_of(id).values():
            yield pytest.param(id, _priced(model), id=f"{id}-{model.identifier}")


def _priced(model: Model) -> Model:
    """Without a price a model needs no length to be priced by, either."""
    return model if "generation_duration" in model.fields else replace(model, pricing_unit="generation")


@pytest.mark.parametrize(("id", "model"), list(pairs()))
def test_a_provider_can_be_told_what_a_model_must_be_told(id: str, model: Model) -> None:
    """Else the pair serves nothing, or only requests that leave everything as it is."""
    assert next(jobs(id, model), None) is not None
    offer = model.providers[id]
    for name, spec in model.fields.items():
        choices = (
            len(spec.enum) if spec.enum else int(spec.max or 2) if name == "generation_output_number" else 2
        )
        told = name in offer.params or (offer.partial and name in offer.limits) or not offer.params
        asked_of_all = ("generation_output_number", "generation_duration", "generation_input_file")
        must = spec.required or name in asked_of_all
        assert told or not must or choices == 1, name
