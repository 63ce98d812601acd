"""Every method of the clients as a flow; the clients only run them."""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, TypeVar
from uuid import uuid4

from babysea._answers import Success, read_answer, read_data
from babysea._catalog import Catalog
from babysea._effects import Flow, Gather, Sleep
from babysea._errors import (
    BabySeaError,
    ConflictError,
    InvalidInputError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from babysea._exchange import Exchange, History
from babysea._job import Job, Outcome
from babysea._operations import (
    CANCEL_GENERATION,
    DELETE_GENERATION,
    ESTIMATE,
    GENERATE,
    GET_GENERATION,
    LIST_GENERATIONS,
    Operation,
    Request,
    generation_id,
    model_identifier,
)
from babysea._types import Accepted, Answer, Canceled, Deleted, Estimate, Generation, Page
from babysea._waiting import OnUpdate, wait_until_final

_PACE_S = 1.0  # of a job that waits for a place among the generations in flight
_PACE_MAX_S = 10.0

Kind = TypeVar("Kind", bound=Answer)
OnProgress = Callable[[int, int, Outcome], object]


class Flows:
    """The flows of one client."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.catalog = Catalog(exchange)

    def read(self, kind: type[Kind], operation: Operation, **parts: Any) -> Flow[Kind]:
        """Any read without further ado."""
        return read_answer(kind, (yield from self.exchange.call(operation.request(**parts))))

    def estimate(self, model: str, **query: Any) -> Flow[Estimate]:
        """What generations of the model would cost."""
        return self.read(Estimate, ESTIMATE, query=query, model_identifier=model_identifier(model))

    def generate(self, job: Job) -> Flow[Accepted]:
        """Start a generation. One key goes with every attempt, so that none of them buys a second time."""
        body = job.checked()
        key = job.idempotency_key or str(uuid4())
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}

        def post(media: str) -> Flow[Success]:
            path = GENERATE.path.format(media=media, model_identifier=job.model)
            return self.exchange.call(Request(GENERATE.method, path, headers, body))

        media = yield from self._media(job.model)
        try:
            success = yield from post(media or "image")
        except InvalidInputError as error:
            if media is not None or error.code != "BSE2012":
                raise
            success = yield from post("video")
        replayed = success.headers.get("idempotency-replayed") == "true"
        return read_answer(Accepted, success, idempotency_key=key, replayed=replayed)

    def _media(self, model: str) -> Flow[str | None]:
        """What the model makes; None when only trying tells, for an alias or a key that may not read the models."""
        try:
            found = yield from self.catalog.find(model)
        except PermissionDeniedError:
            return None
        return None if found is None else found.model_type

    def get_generation(self, id: str) -> Flow[Generation]:
        """Read one generation."""
        return self.read(Generation, GET_GENERATION, generation_id=generation_id(id))

    def list_generations(self, limit: int = 50, offset: int = 0) -> Flow[Page[Generation]]:
        """A page of generations, newest first."""
        query = {"limit": limit, "offset": offset}
        success = yield from self.exchange.call(LIST_GENERATIONS.request(query))
        data = success.data
        numbers: dict[str, Any] = {name: success.envelope.get(name) for name in ("total", "limit", "offset")}
        items = data.get("generations") if isinstance(data, dict) else None
        if not isinstance(items, list) or not all(type(number) is int for number in numbers.values()):
            raise InvalidResponseError("the answer is not a page", request_id=success.request_id)
        return Page(
            items=tuple(
                read_data(Generation, item, success.request_id, "data.generations") for item in items
            ),
            request_id=success.request_id,
            raw=data,
            **numbers,
        )

    def cancel_generation(self, id: str) -> Flow[Canceled]:
        """Cancel a generation; an earlier attempt that did it while its answer was lost counts."""
        id, history = generation_id(id), History()
        try:
            request = CANCEL_GENERATION.request(generation_id=id)
            return read_answer(Canceled, (yield from self.exchange.call(request, history)))
        except ConflictError as error:
            if not history.maybe_done:
                raise
            generation = yield from self.get_generation(id)
            if generation.status != "canceled":
                raise
            return Canceled(generation_id=id, request_id=error.request_id or "", raw=generation.raw)

    def delete_generation(self, id: str) -> Flow[Deleted]:
        """Delete a generation; an earlier attempt that did it while its answer was lost counts."""
        id, history = generation_id(id), History()
        try:
            request = DELETE_GENERATION.request(generation_id=id)
            return read_answer(Deleted, (yield from self.exchange.call(request, history)))
        except NotFoundError as error:
            if not history.maybe_done or error.code != "BSE3001":
                raise
            return Deleted(generation_id=id, request_id=error.request_id or "", raw={})

    def wait_for_generation(
        self, id: str, *, timeout: float, poll_interval: float | None, on_update: OnUpdate | None
    ) -> Flow[Generation]:
        """Wait until it succeeded."""
        return wait_until_final(
            self.exchange, id, timeout=timeout, poll_interval=poll_interval, on_update=on_update
        )

    def generate_and_wait(
        self, job: Job, *, timeout: float, poll_interval: float | None, on_update: OnUpdate | None
    ) -> Flow[Generation]:
        """Start a generation and wait until it succeeded, all within `timeout`."""
        began = self.exchange.clock.monotonic()
        accepted = yield from self.generate(job)
        left = timeout - (self.exchange.clock.monotonic() - began)
        return (
            yield from self.wait_for_generation(
                accepted.id, timeout=left, poll_interval=poll_interval, on_update=on_update
            )
        )

    def generate_many(
        self, jobs: Iterable[Job], *, concurrency: int, timeout: float, on_progress: OnProgress | None
    ) -> Flow[list[Outcome]]:
        """Run all jobs, so many at a time."""
        if concurrency < 1:
            raise InvalidInputError("concurrency is at least 1")
        listed = list(jobs)
        lock, done = Lock(), 0

        def run(job: Job) -> Flow[Outcome]:
            nonlocal done
            outcome = yield from self._outcome(job, timeout)
            with lock:  # so that the numbers come in order
                done += 1
                if on_progress is not None:
                    on_progress(done, len(listed), outcome)
            return outcome

        outcomes: list[Outcome] = yield Gather([run(job) for job in listed], concurrency)
        return outcomes

    def _outcome(self, job: Job, timeout: float) -> Flow[Outcome]:
        clock = self.exchange.clock
        deadline, pace = clock.monotonic() + timeout, _PACE_S
        keyed = Job(job.model, idempotency_key=job.idempotency_key or str(uuid4()), **job.fields)
        while True:
            try:
                left = deadline - clock.monotonic()
                generation = yield from self.generate_and_wait(
                    keyed, timeout=left, poll_interval=None, on_update=None
                )
            except RateLimitError as error:
                # Nothing was accepted: many jobs easily ask for more than the plan allows at once.
                pause = max(pace * (0.5 + clock.random()), error.retry_after or 0.0)
                if clock.monotonic() + pause >= deadline:
                    return Outcome(job, error=error)
            except BabySeaError as error:
                return Outcome(job, error=error)
            else:
                return Outcome(job, generation)
            yield Sleep(pause)
            pace = min(_PACE_MAX_S, pace * 2)
