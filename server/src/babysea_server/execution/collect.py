"""From a finished job to stored outputs: fetched at once, because upstream links die within minutes."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from babysea_server import errors
from babysea_server.execution.attempt import Attempt, Defeat, Success
from babysea_server.execution.lease import LeaseLostError
from babysea_server.execution.watch import RunTrace
from babysea_server.kit.clock import Clock
from babysea_server.outputs.ingest import BadOutputError, StoredOutput, keep
from babysea_server.outputs.store import ObjectStore, StorageError
from babysea_server.providers.base import Accepted, Failure, Finished, Output, Refused
from babysea_server.providers.runner import OutputUnavailableError, Runner

_log = structlog.get_logger(__name__)

_OUTPUT_MAX = {"image": 64 * 1024 * 1024, "video": 1024 * 1024 * 1024}
#: Of one provider at once: some 250 MiB of usual pictures, as much of usual videos.
_PLACES = {"image": 128, "video": 16}
#: How long a store, or the way to a file, that is away is waited for at least, and how often the store is tried.
_PATIENCE_S = 60.0
_STORAGE_PAUSE_S = 5.0
#: With these the model itself chooses how many pictures it makes, up to the number asked for.
_CHOOSES_NUMBER: Mapping[str, Any] = {
    "generation_sequential_image_generation": "auto",
    "generation_enable_sequential": True,
    "generation_enable_interleave": True,
}


class Places:
    """How many generations' outputs of one provider a worker holds in memory at once; the others wait.

    Jobs of many thousand generations may end at the same moment. By provider, so that one whose files come slowly
    keeps nobody else's waiting.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], asyncio.Semaphore] = {}

    def of(self, attempt: Attempt) -> asyncio.Semaphore:
        """Where the attempt gets its place."""
        media = attempt.job.model.media
        key = (attempt.record.provider, media)
        if key not in self._places:
            self._places[key] = asyncio.Semaphore(_PLACES[media])
        return self._places[key]


class Collector:
    """Collects the outputs of one generation's attempts."""

    def __init__(
        self,
        runner: Runner,
        store: ObjectStore,
        clock: Clock,
        *,
        generation_id: UUID,
        created_at: datetime,
        trace: RunTrace,
        places: Places,
    ) -> None:
        self._runner = runner
        self._store = store
        self._clock = clock
        self._generation_id = generation_id
        self._created_at = created_at
        self._trace = trace
        self._places = places
        self.dropped = False
        """The generation has ended without this run: nothing more is fetched or stored."""
        self.storing = False
        """Interrupted now, it could not be told whether there is a file to be deleted."""

    async def collect(
        self, attempt: Attempt, finished: Finished, ticket: Accepted | None
    ) -> Success | Defeat:
        """Fetch, check and store the outputs.

        Raises:
            LeaseLostError, asyncio.CancelledError: nothing stays in the store.
        """
        outputs = _asked_for(attempt, finished.outputs)
        problem = _problem(attempt, outputs)
        if problem is not None:
            return Defeat(attempt, Refused(Failure.BAD_OUTPUT, problem, cost_micro=finished.cost_micro))
        stored: list[StoredOutput] = []
        code = None
        try:
            async with self._places.of(attempt):
                for index in range(len(outputs)):
                    self._still_wanted()
                    with self._trace.step("fetch"):
                        data, outputs = await self._fetch(attempt, outputs, index, ticket)
                    with self._trace.step("store"):
                        stored.append(await self._keep(attempt, index, data, outputs[index].media))
            self._still_wanted()
            return Success(attempt, finished, stored)
        except (OutputUnavailableError, BadOutputError) as error:
            message = str(error)
        except StorageError as error:
            message, code = str(error), errors.STORAGE_ERROR.code
        except BaseException:
            await self.throw_away(stored)
            raise
        await self.throw_away(stored)
        return Defeat(attempt, Refused(Failure.BAD_OUTPUT, message, code, cost_micro=finished.cost_micro))

    async def throw_away(self, outputs: Sequence[StoredOutput]) -> None:
        """Delete files that no generation names; what cannot be deleted now is only a file too many."""
        if outputs:
            try:
                await self._store.delete([output.key for output in outputs])
            except StorageError as error:
                _log.warning("outputs_not_deleted", files=len(outputs), error=str(error))

    async def _fetch(
        self, attempt: Attempt, outputs: Sequence[Output], index: int, ticket: Accepted | None
    ) -> tuple[bytes, Sequence[Output]]:
        """One output's bytes; links that have died are asked for again, once."""
        media = outputs[index].media or attempt.job.model.media
        patience_s = self._patience_s(attempt)

        async def fetch() -> bytes:
            return await self._runner.fetch(
                attempt.job, outputs[index], body_max=_OUTPUT_MAX[media], patience_s=patience_s
            )

        try:
            return await fetch(), outputs
        except OutputUnavailableError as error:
            if not error.gone or ticket is None:
                raise
            again = await self._runner.poll(attempt.job, ticket)
            if not isinstance(again, Finished):
                raise
            fresh = _asked_for(attempt, again.outputs)
            if len(fresh) != len(outputs) or fresh[index].url == outputs[index].url:
                raise
            outputs = fresh
        return await fetch(), outputs

    def _still_wanted(self) -> None:
        """Before the next piece of work on an output.

        Raises:
            LeaseLostError: the generation has ended without this run.
        """
        if self.dropped:
            raise LeaseLostError

    def _patience_s(self, attempt: Attempt) -> float:
        left = max(attempt.ends_at - self._clock.monotonic(), _PATIENCE_S)
        life_s = self._runner.output_life_s(attempt.record.provider)
        return left if life_s is None else min(left, life_s)

    async def _keep(self, attempt: Attempt, index: int, data: bytes, media: str | None) -> StoredOutput:
        """Store one output; a store that is away is waited for, because the output has been paid."""
        clock = self._clock
        give_up_at = max(attempt.ends_at, clock.monotonic() + _PATIENCE_S)
        while True:
            self.storing = True
            try:
                return await keep(
                    self._store,
                    generation_id=self._generation_id,
                    created_at=self._created_at,
                    index=index,
                    data=data,
                    media="image" if (media or attempt.job.model.media) == "image" else "video",
                    clock=clock,
                )
            except StorageError as error:
                _log.warning("output_not_stored", generation_id=str(self._generation_id), error=str(error))
                if clock.monotonic() >= give_up_at:
                    raise
            finally:
                self.storing = False
            self._still_wanted()
            await clock.sleep(_STORAGE_PAUSE_S)


def _asked(attempt: Attempt) -> int | None:
    """How many outputs were asked for; None where the model takes no number."""
    number = attempt.job.inputs.get("generation_output_number")
    return number if isinstance(number, int) else None


def _asked_for(attempt: Attempt, outputs: Sequence[Output]) -> Sequence[Output]:
    """No more than were asked for, and what comes beside them."""
    main = [output for output in outputs if output.media is None][: _asked(attempt)]
    return [*main, *(output for output in outputs if output.media is not None)]


def _problem(attempt: Attempt, outputs: Sequence[Output]) -> str | None:
    """Why these outputs are not what was bought: the customer pays for all of them or for none."""
    main, asked = sum(output.media is None for output in outputs), _asked(attempt)
    if not main:
        return "success without an output"
    inputs = attempt.job.inputs
    if asked is None or main >= asked or any(inputs.get(name) == on for name, on in _CHOOSES_NUMBER.items()):
        return None
    return f"{main} of {asked} outputs"
