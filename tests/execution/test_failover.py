"""What each way of failing means for a generation: attempts, the next provider, the customer's error, money."""

from typing import Any

import pytest
from tests.execution.conftest import BALANCE, COST, House
from tests.execution.scripted import (
    DONE,
    PICTURE,
    AdapterError,
    Call,
    Gate,
    Script,
    Scripted,
    accepted,
    lost,
)
from tests.support import eventually

from babysea_server.execution.worker import Worker
from babysea_server.kit.clock import SystemClock
from babysea_server.providers.base import (
    Accepted,
    AnswerLostError,
    Failure,
    Finished,
    NeverSentError,
    NotFound,
    Output,
    Refused,
    Running,
    Unclear,
)
from babysea_server.providers.caps import Cap
from babysea_server.settings import ProviderSettings

CHAIN = ("replicate", "fal", "cloudflare")
NO_OUTPUT = Finished([], cost_micro=700)
BROKEN = Finished([Output(data=PICTURE[:60])])


def refuses(failure: Failure) -> Script:
    return Script([Refused(failure, f"refused: {failure}")])


# How a provider fails, the class in the attempt log, the code if it is the only way.
WAYS: dict[str, tuple[Script, str, str]] = {
    "never sent": (Script([NeverSentError("no route")]), "never_sent", "BSE4001"),
    "busy": (refuses(Failure.REFUSED_BUSY), "refused_busy", "BSE4004"),
    "auth": (refuses(Failure.REFUSED_AUTH), "refused_auth", "BSE4008"),
    "funds": (refuses(Failure.REFUSED_FUNDS), "refused_funds", "BSE4007"),
    "input": (refuses(Failure.REFUSED_INPUT), "refused_input", "BSE4005"),
    "policy": (refuses(Failure.REFUSED_POLICY), "refused_policy", "BSE2006"),
    "failed": (Script([accepted()], [Refused(Failure.FAILED, "boom")]), "failed", "BSE4001"),
    "unknown": (Script([AnswerLostError("reset")]), "outcome_unknown", "BSE4009"),
    "no output": (Script([accepted()], [NO_OUTPUT]), "bad_output", "BSE4010"),
    "broken output": (Script([accepted()], [BROKEN]), "bad_output", "BSE4010"),
    "no output inline": (Script([NO_OUTPUT]), "bad_output", "BSE4010"),
    "fault of the adapter": (Script(), "never_sent", "BSE4001"),
}
ENDS_THE_CHAIN = {"policy", "unknown"}


class Faulty(Scripted):
    """Cannot even build the request for some providers."""

    def __init__(self, faulty: set[str]) -> None:
        super().__init__()
        self._faulty = faulty

    def build_submit(self, job: Any) -> Any:
        if job.provider_id in self._faulty:
            raise AdapterError("a mistake in the adapter")
        return super().build_submit(job)


def _failing(copies: int) -> Scripted:
    """`copies` providers for each way of failing, named after it; all others work."""
    names = {f"{way} {n}": way for way in WAYS for n in range(copies)}
    provider = Faulty({name for name, way in names.items() if way == "fault of the adapter"})
    provider.scripts = {
        name: Script(list(WAYS[way][0].submits), list(WAYS[way][0].polls)) for name, way in names.items()
    }
    provider.scripts["cloudflare"] = Script([accepted()])
    return provider


async def test_each_failure_alone_is_refunded_whole_and_recorded(house: House) -> None:
    house.provider = _failing(1)
    generations = {way: await house.admit([f"{way} 0"]) for way in WAYS}
    await house.worker()
    for way, (_, failure, code) in WAYS.items():
        row = await house.finished(generations[way])
        assert (row["status"], row["error_code"]) == ("failed", code), way
        assert (row["charged"], row["refunded"], row["provider_used"]) == (0, COST, None), way
        assert await house.outcomes(row["id"]) == [(f"{way} 0", "failed", failure)]
    assert await house.balance() == BALANCE
    await house.check()


async def test_after_each_failure_the_next_providers_are_asked_until_one_has_it(house: House) -> None:
    house.provider = _failing(2)
    going_on = sorted(set(WAYS) - ENDS_THE_CHAIN)
    generations = {way: await house.admit([f"{way} 0", f"{way} 1", "cloudflare"]) for way in going_on}
    await house.worker()
    for way, generation in generations.items():
        failure = WAYS[way][1]
        row = await house.finished(generation)
        assert (row["status"], row["provider_used"]) == ("succeeded", "cloudflare"), way
        assert (row["error_code"], row["charged"], row["refunded"]) == (None, COST, 0), way
        assert await house.outcomes(generation) == [
            (f"{way} 0", "failed", failure),
            (f"{way} 1", "failed", failure),
            ("cloudflare", "used", None),
        ]
        attempts = await house.attempts(generation)
        assert [attempt["attempt_order"] for attempt in attempts] == [1, 2, 3]
        assert attempts[0]["id"] == row["prediction_id"]
    assert await house.balance() == BALANCE - COST * len(generations)
    await house.check()


async def test_the_chain_ends_where_asking_on_would_be_wrong(house: House) -> None:
    house.provider = _failing(1)
    generations = {
        way: await house.admit(["busy 0", f"{way} 0", "cloudflare"]) for way in sorted(ENDS_THE_CHAIN)
    }
    await house.worker()
    for way, generation in generations.items():
        _, failure, code = WAYS[way]
        row = await house.finished(generation)
        assert (row["status"], row["error_code"]) == ("failed", code), way
        assert [entry[2] for entry in await house.outcomes(generation)] == ["refused_busy", failure]
    assert house.provider.count("submit", "cloudflare") == 0
    await house.check()


async def test_different_failures_are_all_providers_failed(house: House) -> None:
    house.provider = _failing(1)
    generation = await house.admit(["busy 0", "failed 0", "no output 0"])
    await house.worker()
    row = await house.finished(generation)
    assert row["error_code"] == "BSE4006"
    assert (
        row["error_message"] == "All providers failed (busy 0, failed 0, no output 0). You were not charged."
    )
    attempts = await house.attempts(generation)
    assert attempts[2]["estimated_cost"] == 700  # what the operator paid for nothing
    await house.check()


async def test_the_attempt_is_in_the_database_before_the_provider_is_called(house: House) -> None:
    seen = []

    async def look(call: Call) -> None:
        row = await house.db.fetchrow("SELECT * FROM attempts WHERE id = $1", call.reference)
        seen.append((row["provider"], row["outcome"], row["adapter"], row["upstream_id"]))

    house.provider = Scripted(
        replicate=Script([Refused(Failure.FAILED, "no")], on_submit=look),
        fal=Script([accepted()], on_submit=look),
    )
    generation = await house.admit(CHAIN)
    await house.worker()
    await house.finished(generation)
    assert seen == [("replicate", "pending", "scripted", None), ("fal", "pending", "scripted", None)]


async def test_the_upstream_id_is_persisted_before_the_first_poll(house: House) -> None:
    seen = []

    async def look(call: Call) -> None:
        row = await house.db.fetchrow(
            """SELECT a.upstream_id, a.upstream, a.accepted_at IS NOT NULL AS accepted, g.status,
                      g.started_at IS NOT NULL AS started
               FROM attempts a JOIN generations g ON g.id = a.generation_id WHERE a.id = $1""",
            call.reference,
        )
        seen.append(tuple(row))

    state = {"url": "https://upstream.test/1"}
    script = Script([Accepted("", state, poll_after_s=0.0)], on_poll=look)
    house.provider = Scripted(replicate=script)
    generation = await house.admit()
    await house.worker()
    assert (await house.finished(generation))["status"] == "succeeded"
    attempt = (await house.attempts(generation))[0]
    assert seen == [(f"up-{attempt['id']}", state, True, "processing", True)]


# ----------------------------------------------------------------------------------------- busy


async def test_a_short_retry_after_is_honoured_once(house: House) -> None:
    busy = Refused(Failure.REFUSED_BUSY, "wait", retry_after_s=0.05)
    house.provider = Scripted(replicate=Script([busy, accepted()]))
    generation = await house.admit(CHAIN)
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["provider_used"]) == ("succeeded", "replicate")
    assert await house.outcomes(generation) == [("replicate", "used", None)]
    assert house.provider.count("submit") == 2


async def test_a_short_retry_after_is_not_honoured_twice(house: House) -> None:
    busy = Refused(Failure.REFUSED_BUSY, "wait", retry_after_s=0.05)
    house.provider = Scripted(replicate=Script([busy, busy, accepted()]), fal=Script())
    generation = await house.admit(CHAIN)
    await house.worker()
    row = await house.finished(generation)
    assert row["provider_used"] == "fal"
    assert house.provider.count("submit", "replicate") == 2


async def test_a_long_retry_after_is_not_waited_for(house: House) -> None:
    busy = Refused(Failure.REFUSED_BUSY, "wait", retry_after_s=60.0)
    house.provider = Scripted(replicate=Script([busy, accepted()]), fal=Script())
    generation = await house.admit(CHAIN)
    await house.worker()
    row = await house.finished(generation)
    assert row["provider_used"] == "fal"
    assert house.provider.count("submit", "replicate") == 1


# ----------------------------------------------------------------------------------------- unknown


async def test_an_unknown_outcome_that_is_found_goes_on_without_a_second_submit(house: House) -> None:
    script = Script([lost(AnswerLostError("reset"), bought=True)], reconcile="jobs")
    house.provider = Scripted(replicate=script)
    generation = await house.admit(CHAIN)
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["provider_used"]) == ("succeeded", "replicate")
    assert (house.provider.count("submit"), house.provider.count("reconcile")) == (1, 1)
    assert (await house.attempts(generation))[0]["upstream_id"] is not None
    await house.check()


@pytest.mark.parametrize("found", ["jobs", NotFound()])
async def test_an_unknown_outcome_that_is_certainly_nothing_fails_over(house: House, found: Any) -> None:
    script = Script([lost(AnswerLostError("reset"), bought=False)], reconcile=found)
    house.provider = Scripted(replicate=script, fal=Script([accepted()]))
    generation = await house.admit(CHAIN)
    await house.worker()
    assert (await house.finished(generation))["provider_used"] == "fal"
    assert house.provider.count("submit", "replicate") == 1
    assert (await house.outcomes(generation))[0] == ("replicate", "failed", "never_sent")
    await house.check()


async def test_an_unknown_outcome_that_stays_unclear_ends_the_generation(house: House) -> None:
    script = Script([lost(AnswerLostError("reset"), bought=True)], reconcile=Unclear())
    house.provider = Scripted(replicate=script, fal=Script())
    generation = await house.admit(CHAIN)
    await house.worker()
    assert (await house.finished(generation))["error_code"] == "BSE4009"
    assert house.provider.purchases == 1
    await house.check()


# ----------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("cancel", [True, False, None])
async def test_a_job_that_takes_too_long_is_asked_to_stop_and_the_next_provider_is_asked(
    house: House, cancel: bool | None
) -> None:
    house.provider = Scripted(
        replicate=Script([accepted()], [Running(0.05)], cancel=cancel), fal=Script([accepted()])
    )
    generation = await house.admit(CHAIN)
    await house.worker(attempt_timeout_s={"image": 0.3, "video": 0.3})
    row = await house.finished(generation)
    assert row["provider_used"] == "fal"
    assert (await house.outcomes(generation))[0] == ("replicate", "failed", "timed_out")
    assert house.provider.count("cancel", "replicate") == (0 if cancel is None else 1)
    message = (await house.attempts(generation))[0]["error_message"]
    assert message.endswith("it confirmed that it stopped") is bool(cancel)
    await house.check()


async def test_too_slow_alone_is_a_timeout(house: House) -> None:
    house.provider = Scripted(replicate=Script([accepted()], [Running(0.05)]))
    generation = await house.admit()
    await house.worker(attempt_timeout_s={"image": 0.2, "video": 0.2})
    assert (await house.finished(generation))["error_code"] == "BSE4002"


async def test_a_poll_without_an_answer_means_nothing(house: House) -> None:
    polls = [AnswerLostError("reset"), NeverSentError("refused"), Running(0.0), DONE]
    house.provider = Scripted(replicate=Script([accepted()], polls))
    generation = await house.admit()
    await house.worker()
    assert (await house.finished(generation))["status"] == "succeeded"
    assert house.provider.count("poll") == 4
    assert house.provider.count("submit") == 1


async def test_words_of_a_provider_that_the_database_cannot_keep_do_not_stop_the_chain(house: House) -> None:
    words = Refused(Failure.FAILED, "bad \0 and \ud800 words" + "x" * 2000, cost_micro=-5)
    house.provider = Scripted(
        replicate=Script([words]), fal=Script([Finished([Output(data=PICTURE)], -1, -0.5)])
    )
    generation = await house.admit(CHAIN)
    await house.worker()
    assert (await house.finished(generation))["status"] == "succeeded"
    attempt = (await house.attempts(generation))[0]
    assert attempt["error_message"].startswith("bad  and ? words")
    assert (len(attempt["error_message"]), attempt["estimated_cost"]) == (500, 0)


async def test_a_model_that_left_the_catalog_is_refunded(house: House) -> None:
    generation = await house.admit(model="gone/model")
    await house.worker()
    row = await house.finished(generation)
    assert (row["error_code"], row["refunded"]) == ("BSE4011", COST)
    assert house.provider.calls == []
    await house.check()


async def test_every_transport_that_offers_it_is_maintained(house: House) -> None:
    killable = await house.worker()
    assert isinstance(killable.worker, Worker)
    await house.finished(await house.admit())
    assert house.provider.maintained == 1


async def test_after_an_unknown_outcome_the_next_is_asked_only_where_the_operator_chose_so(
    house: House,
) -> None:
    lossy = Script([lost(AnswerLostError("reset"), bought=True)])
    house.provider = Scripted(replicate=lossy, fal=Script())
    house.provider.settings = ProviderSettings(unknown_outcome="next_provider")
    generation = await house.admit(("replicate", "fal"))
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["provider_used"]) == ("succeeded", "fal")
    assert await house.outcomes(generation) == [
        ("replicate", "failed", "outcome_unknown"),
        ("fal", "used", None),
    ]
    # What may have been bought at the first counts as wasted.
    assert (await house.attempts(generation))[0]["estimated_cost"] > 0
    await house.check()


async def test_fewer_outputs_than_asked_for_are_no_success(house: House) -> None:
    house.provider = Scripted(replicate=Script([DONE]), fal=Script([Finished([Output(data=PICTURE)] * 5)]))
    generation = await house.admit(
        ("replicate", "fal"), inputs={"generation_prompt": "a test", "generation_output_number": 3}
    )
    await house.worker()
    row = await house.finished(generation)
    assert (row["provider_used"], len(row["outputs"])) == ("fal", 3)
    assert await house.outcomes(generation) == [("replicate", "failed", "bad_output"), ("fal", "used", None)]
    await house.check()


async def test_a_provider_without_room_is_passed_over_and_waited_for_when_it_is_the_only_one(
    house: House,
) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], on_submit=gate), fal=Script())
    house.caps = {"replicate": Cap(SystemClock(), jobs_at_once=1)}
    first = await house.admit(("replicate",))
    await house.worker()
    await gate.entered.wait()
    over = await house.admit(("replicate", "fal"))
    assert (await house.finished(over))["provider_used"] == "fal"
    waiting = await house.admit(("replicate",))

    async def claimed() -> bool:
        return bool((await house.generation(waiting))["worker_id"])

    await eventually(claimed)
    assert await house.attempts(waiting) == [], "its time has not begun"
    gate.opened.set()
    for generation in (first, waiting):
        assert (await house.finished(generation))["provider_used"] == "replicate"
    await house.check()


async def test_links_that_died_are_asked_for_again_once(house: House) -> None:
    """Some providers sign links for minutes and give fresh ones whenever they are asked."""
    dead, fresh = Output(url="file/replicate/dead"), Output(url="file/replicate/fresh")
    script = Script([accepted()], [Finished([dead]), Finished([fresh])], files={"fresh": PICTURE})
    house.provider = Scripted(replicate=script)
    generation = await house.admit(("replicate",))
    await house.worker()
    assert (await house.finished(generation))["status"] == "succeeded"
    assert house.provider.count("poll") == 2
    await house.check()
