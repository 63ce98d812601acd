"""The tool that buys."""

import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import anyio

from babysea import (
    Accepted,
    BabySeaError,
    Generation,
    GenerationCanceledError,
    GenerationFailedError,
    GenerationTimeoutError,
    InvalidInputError,
    Job,
)
from babysea.mcp._budget import micros, shown
from babysea.mcp._desk import Desk, Reply, Report, view
from babysea.mcp._pictures import links, pictures
from babysea.mcp._problems import surely_refused
from babysea.mcp._shapes import Generate, Generated

_log = logging.getLogger(__name__)

_REPORT_S = 2.0
_CANCEL_S = 10.0
_OWN_ARGUMENTS = ("model", "prompt", "idempotency_key")
#: What a price can depend on beside what the estimate is told.
_NOT_ESTIMATED = ("generation_quality", "generation_frames", "generation_fps")


async def generate(desk: Desk, asked: Generate, report: Report) -> Reply:
    """Buy one generation, and wait for it if asked to."""
    job = _job(asked)
    cost = micros(await _cost(desk, job))
    accepted = await _buy(desk, job, cost)
    try:
        # Who was canceled while buying learns it here, and the generation is not forgotten.
        await report(0.0, f"Generation {accepted.id} was accepted; {shown(cost)} credits are reserved.")
        await anyio.lowlevel.checkpoint()
        if not asked.wait:
            return Reply(_answer(desk, accepted, None, cost, "Read the result by get_generation."))
        ended = await _wait(desk, accepted.id, asked.timeout_s, report)
    except anyio.get_cancelled_exc_class():
        await _abandon(desk, accepted.id)
        raise
    return await _conclude(desk, accepted, ended, cost)


def _job(asked: Generate) -> Job:
    for name in _OWN_ARGUMENTS:
        if name in asked.inputs:
            raise InvalidInputError(f"`{name}` does not belong into `inputs`")
    return Job(asked.model, asked.prompt, idempotency_key=str(uuid4()), **asked.inputs)


async def _cost(desk: Desk, job: Job) -> float:
    """What the generation will reserve.

    Raises:
        InvalidInputError: there is a limit to what may be spent, and the price cannot be told beforehand.
    """
    fields = job.fields
    if desk.budget.limit is not None:
        for name in _NOT_ESTIMATED:
            if name in fields:
                short = name.removeprefix("generation_")
                raise InvalidInputError(
                    f"with a spending limit `{short}` cannot be used: its price is not known beforehand"
                )
    found = await desk.client.estimate(
        job.model,
        count=max(1, _integer(fields, "generation_output_number") or 1),
        duration=_integer(fields, "generation_duration"),
        resolution=_of(fields, "generation_resolution", str),
        audio=_of(fields, "generation_generate_audio", bool),
    )
    return found.cost_total_consumed


async def _buy(desk: Desk, job: Job, cost: int) -> Accepted:
    await desk.budget.take(cost)
    # Not to be interrupted: what was bought must be known, also when nobody waits for it any more.
    with anyio.CancelScope(shield=True):
        try:
            accepted = await desk.client.generate(
                job.model, idempotency_key=job.idempotency_key, **job.fields
            )
        except BabySeaError as error:
            if surely_refused(error):
                desk.budget.give_back(cost)
            raise
    desk.budget.accepted(accepted.id, cost)
    return accepted


async def _wait(desk: Desk, id: str, timeout: float, report: Report) -> Generation | BabySeaError:
    """The final generation, or the error that waiting ended with; the assistant hears of it meanwhile."""
    began, status = anyio.current_time(), "pending"

    def note(generation: Generation) -> None:
        nonlocal status
        status = generation.status

    async def tell() -> None:
        while True:
            await anyio.sleep(_REPORT_S)
            passed = anyio.current_time() - began
            await report(
                passed, f"{status} for {passed:.0f} s; generation {id} goes on when nobody waits for it."
            )

    ended: Generation | BabySeaError
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell)
        try:
            ended = await desk.client.wait_for_generation(id, timeout=timeout, on_update=note)
        except BabySeaError as error:
            ended = error
        tasks.cancel_scope.cancel()
    return ended


async def _conclude(desk: Desk, accepted: Accepted, ended: Generation | BabySeaError, cost: int) -> Reply:
    if isinstance(ended, GenerationTimeoutError):
        running = "It is still running: read the result by get_generation, or cancel it."
        return Reply(_answer(desk, accepted, ended.generation, cost, running))
    if isinstance(ended, BabySeaError):
        if isinstance(ended, GenerationFailedError | GenerationCanceledError):
            desk.budget.seen(accepted.id, ended.generation.status)
        ended.generation_id = accepted.id
        raise ended
    desk.budget.seen(ended.id, ended.status)
    found, note = await pictures(desk.client, ended)
    return Reply(_answer(desk, accepted, ended, cost, note), [*found, *links(ended)])


def _answer(
    desk: Desk, accepted: Accepted, generation: Generation | None, cost: int, note: str | None
) -> Generated:
    credits = cost / 1_000_000
    if generation is None:
        facts: dict[str, Any] = {
            "generation_id": accepted.id,
            "model": accepted.model_identifier or "",
            "status": accepted.generation_status or "pending",
        }
    else:
        facts = view(generation).model_dump()
    charged = credits if generation is not None and generation.status == "succeeded" else None
    facts |= {"cost": credits, "charged": charged, "limit_left": desk.limit_left, "note": note}
    return Generated(**facts)


async def _abandon(desk: Desk, id: str) -> None:
    """Nobody waits for the generation any more."""
    if not desk.cancel_on_abort:
        _log.warning("generation %s goes on, though its tool call was canceled", id)
        return
    with anyio.move_on_after(_CANCEL_S, shield=True):
        try:
            canceled = await desk.client.cancel_generation(id)
        except BabySeaError as error:
            _log.warning("generation %s could not be canceled: %s", id, error)
        else:
            desk.budget.seen(id, canceled.generation_status)
            _log.warning("generation %s was canceled with its tool call", id)


def _integer(fields: Mapping[str, Any], name: str) -> int | None:
    """A whole number of the request. What is no such number is refused by the server, and costs nothing."""
    value = fields.get(name)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _of(fields: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = fields.get(name)
    return value if isinstance(value, kind) else None
