"""`batch` against a live server: all made, some made, killed and gone on with, guarded."""

import json
import signal
from typing import Any

import pytest
from tests.sdk.cli.program import Program
from tests.sdk.conftest import Live
from tests.support import Customer, eventually, make_customer


@pytest.fixture
async def customer(live: Live, babysea: Program) -> Customer:
    """A customer of the test's own, whose generations can be counted."""
    customer = await make_customer(live.deployment)
    babysea.environment["BABYSEA_API_KEY"] = customer.key
    return customer


def table(babysea: Program, text: str, name: str = "prompts.csv") -> str:
    (babysea.folder / name).write_text(text)
    return name


async def bought(customer: Customer, status: str = "%") -> int:
    """How many generations the customer has; each must be one job at the provider."""
    rows = await customer.deployment.db.fetch(
        "SELECT id FROM generations WHERE account_id = $1 AND status::text LIKE $2",
        customer.account_id,
        status,
    )
    doubled = await customer.deployment.db.fetch(
        "SELECT reference FROM sandbox.jobs GROUP BY reference HAVING count(*) > 1"
    )
    assert doubled == []
    return len(rows)


def journal(babysea: Program) -> list[dict[str, Any]]:
    path = babysea.folder / "out" / ".babysea-batch.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def files(babysea: Program) -> list[str]:
    return sorted(path.name for path in (babysea.folder / "out").iterdir() if not path.name.startswith("."))


async def test_every_row_becomes_a_file_once(babysea: Program, customer: Customer) -> None:
    name = table(
        babysea,
        "prompt,name,model,ratio,seed\n"
        "a red fox,fox,,16:9,7\n"
        '"an owl, at night",owl,,,\n'
        "waves,waves,sandbox/video,,\n"
        ",,,,\n",
    )
    before = await customer.balance()
    made = await babysea("batch", name, "-o", "out", "--model", "sandbox/image")
    assert made.code == 0, made.err
    assert files(babysea) == ["fox.png", "owl.png", "waves.mp4"]
    assert "3 rows, 0 done before; 3 to buy for " in made.err
    paid = f"{(before - await customer.balance()) / 1_000_000:g} credits"
    assert f"charged      {paid}" in made.out
    assert "line 2 (fox): fox.png" in made.err

    again = await babysea("batch", name, "-o", "out", "--model", "sandbox/image", "--json")
    assert again.code == 0
    assert again.lines == [
        {"summary": {"rows": 3, "done_before": 3, "succeeded": 0, "failed": 0, "not_begun": 0, "credits": 0}}
    ]
    assert await bought(customer) == 3


async def test_only_what_is_new_in_the_table_is_made(babysea: Program, customer: Customer) -> None:
    order = ("-o", "out", "-m", "sandbox/image", "--json")
    await babysea("batch", table(babysea, "prompt\na fox\nan owl\n"), *order)
    assert await bought(customer) == 2
    more = await babysea("batch", table(babysea, "prompt\na bear\nan owl\na fox\na fox\n"), *order)
    assert more.lines[-1]["summary"] | {"credits": 0} == {
        "rows": 4, "done_before": 2, "succeeded": 2, "failed": 0, "not_begun": 0, "credits": 0,
    }  # fmt: skip
    assert await bought(customer) == 4
    assert len(files(babysea)) == 4


async def test_some_that_fail_are_told_and_tried_again(babysea: Program, customer: Customer) -> None:
    name = table(babysea, "prompt,name\na fox,fox\nx [sandbox:refuse_policy],bad\n")
    made = await babysea("batch", name, "-o", "out", "-m", "sandbox/image", "--json")
    assert made.code == 3
    by_name = {line["name"]: line for line in made.lines[:-1]}
    assert by_name["fox"]["files"] == ["fox.png"]
    assert by_name["fox"]["credits"] > 0
    assert by_name["bad"]["error"]["code"] == "BSE2006"
    assert by_name["bad"]["generation_id"] == by_name["bad"]["error"]["generation_id"]

    again = await babysea("batch", name, "-o", "out", "-m", "sandbox/image")
    assert again.code == 3
    assert "BSE2006" in again.out
    assert "The same command again goes on from here." in again.err
    assert (await bought(customer, "succeeded"), await bought(customer, "failed")) == (1, 2)


async def test_none_that_succeeds_is_a_failure(babysea: Program, customer: Customer) -> None:
    name = table(babysea, "prompt\nx [sandbox:refuse_policy]\n")
    assert (await babysea("batch", name, "-o", "out", "-m", "sandbox/image")).code == 1


async def test_a_run_that_was_killed_buys_nothing_twice(babysea: Program, customer: Customer) -> None:
    """Killed with rows that are done, rows in flight, and rows that were not begun."""
    slow = [f"row {number} [sandbox:slow:4]" for number in range(2)]
    name = table(babysea, "\n".join(["prompt", "row a", "row b", *slow, "row c", "row d"]) + "\n")
    order = ("batch", name, "-o", "out", "-m", "sandbox/image", "-c", "2", "--json")

    async with babysea.started(*order) as process:

        async def in_flight() -> bool:
            return sum("accepted" in record for record in journal(babysea)) == 4

        await eventually(in_flight)
        process.send(signal.SIGKILL)
        assert (await process.ended()).code == -signal.SIGKILL
    assert await bought(customer) == 4
    assert sum("done" in record for record in journal(babysea)) == 2

    made = await babysea(*order)
    assert made.code == 0, made.err
    assert "6 rows, 2 done before, 2 running; 2 to buy" in made.err
    assert await bought(customer, "succeeded") == await bought(customer) == 6
    assert len(files(babysea)) == 6


async def test_a_run_that_was_killed_before_it_had_the_answer_buys_nothing_twice(
    babysea: Program, customer: Customer
) -> None:
    """What the journal of such a run holds: keys that were sent, and half a line of the next record."""
    name = table(babysea, "prompt\na fox\nan owl\n")
    order = ("batch", name, "-o", "out", "-m", "sandbox/image")
    assert (await babysea(*order)).code == 0
    path = babysea.folder / "out" / ".babysea-batch.jsonl"
    kept = [line for line in path.read_text().splitlines() if '"owner"' in line or '"key"' in line]
    path.write_text("\n".join(kept) + '\n{"row": "0123')

    again = await babysea(*order)
    assert again.code == 0, again.err
    assert await bought(customer) == 2
    assert len(files(babysea)) == 2
    assert "2 done before" in (await babysea(*order)).err


async def test_what_may_have_been_bought_long_ago_is_not_bought_unasked(
    babysea: Program, customer: Customer
) -> None:
    name = table(babysea, "prompt\na fox\n")
    order = ("batch", name, "-o", "out", "-m", "sandbox/image")
    assert (await babysea(*order)).code == 0
    path = babysea.folder / "out" / ".babysea-batch.jsonl"
    records = [record for record in journal(babysea) if "owner" in record or "key" in record]
    for record in records:
        record["at"] = 0
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    unasked = await babysea(*order)
    assert unasked.code == 1
    assert "it may have been bought; --again buys it anew" in unasked.out
    assert await bought(customer) == 1
    assert (await babysea(*order, "--again")).code == 0
    assert await bought(customer) == 2


async def test_a_generation_that_is_gone_is_told(babysea: Program, customer: Customer) -> None:
    name = table(babysea, "prompt\na fox\n")
    order = ("batch", name, "-o", "out", "-m", "sandbox/image")
    assert (await babysea(*order)).code == 0
    path = babysea.folder / "out" / ".babysea-batch.jsonl"
    records = [record for record in journal(babysea) if "done" not in record]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert (await babysea("delete", records[-1]["accepted"])).code == 0

    unasked = await babysea(*order)
    assert unasked.code == 1
    assert "the server has it no longer; --again buys it anew" in unasked.out
    assert (await babysea(*order, "--again")).code == 0


async def test_an_account_that_runs_dry_stops_the_batch(babysea: Program, live: Live) -> None:
    price = (await babysea("estimate", "sandbox/image", "--json")).json["cost_per_generation"]
    poor = await make_customer(live.deployment, credits=f"{2 * price:f}")
    name = table(babysea, "prompt\n" + "".join(f"row {number}\n" for number in range(8)))
    made = await babysea(
        "batch",
        name,
        "-o",
        "out",
        "-m",
        "sandbox/image",
        "-c",
        "1",
        "--json",
        environment={"BABYSEA_API_KEY": poor.key},
    )
    assert made.code == 3
    summary = made.lines[-1]["summary"]
    assert (summary["succeeded"], summary["failed"], summary["not_begun"]) == (2, 1, 5)
    assert made.lines[2]["error"]["code"] == "BSE1004"


async def test_a_plan_with_few_places_is_waited_for(babysea: Program, live: Live) -> None:
    free = await make_customer(live.deployment, plan="free")
    name = table(babysea, "prompt\n" + "".join(f"row {number} [sandbox:slow:1]\n" for number in range(4)))
    made = await babysea(
        "batch", name, "-o", "out", "-m", "sandbox/image", environment={"BABYSEA_API_KEY": free.key}
    )
    assert made.code == 0, made.out
    assert await bought(free, "succeeded") == await bought(free) == 4


async def test_more_than_it_may_cost_is_not_begun(babysea: Program, customer: Customer) -> None:
    name = table(babysea, "prompt\na fox\nan owl\n")
    price = (await babysea("estimate", "sandbox/image", "--json")).json["cost_per_generation"]
    order = ("batch", name, "-o", "out", "-m", "sandbox/image", "--max-credits")
    refused = await babysea(*order, f"{1.5 * price:f}")
    assert refused.code == 2
    assert "nothing was bought" in refused.err
    assert await bought(customer) == 0
    assert (await babysea(*order, f"{2 * price:f}")).code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt,model\na,\n", "line 2 has no model"),
        ("prompt,model\na,sandbox/image\nb,sandbox/none\n", "line 3"),
        ("prompt,model,duration\na,sandbox/video,7777\n", "line 2"),
    ],
)
async def test_a_table_with_a_fault_is_refused_whole(
    babysea: Program, customer: Customer, text: str, said: str
) -> None:
    refused = await babysea("batch", table(babysea, text), "-o", "out")
    assert refused.code in (1, 2)
    assert said in refused.err
    assert await bought(customer) == 0


async def test_files_of_other_origin_are_not_written_over(babysea: Program, customer: Customer) -> None:
    (babysea.folder / "out").mkdir()
    (babysea.folder / "out" / "fox.png").write_text("mine")
    order = ("batch", table(babysea, "prompt,name\na fox,fox\n"), "-o", "out", "-m", "sandbox/image")
    refused = await babysea(*order)
    assert refused.code == 2
    assert "fox.png is there already" in refused.err
    assert (babysea.folder / "out" / "fox.png").read_text() == "mine"
    assert await bought(customer) == 0
    assert (await babysea(*order, "--overwrite")).code == 0


async def test_a_folder_belongs_to_one_account(babysea: Program, customer: Customer, live: Live) -> None:
    order = ("batch", table(babysea, "prompt\na fox\n"), "-o", "out", "-m", "sandbox/image")
    assert (await babysea(*order)).code == 0
    other = await babysea(*order, environment={"BABYSEA_API_KEY": live.customer.key})
    assert other.code == 1
    assert "another account" in other.err


async def test_ctrl_c_begins_nothing_new_and_a_second_leaves(babysea: Program, customer: Customer) -> None:
    rows = "".join(f"row {number} [sandbox:slow:3]\n" for number in range(4))
    order = ("batch", table(babysea, "prompt\n" + rows), "-o", "out", "-m", "sandbox/image", "-c", "2")

    async def begun() -> bool:
        return sum("accepted" in record for record in journal(babysea)) == 2

    async with babysea.terminal(*order, columns=40) as terminal:
        await eventually(begun)
        terminal.interrupt()
        await terminal.shows("Nothing new is begun; waiting for what runs.")
        assert await terminal.ended() == 130
        assert "succeeded 2" in terminal.text
        assert "not begun 2" in terminal.text
        assert all(len(row) <= 40 for row in terminal.rows)
    assert await bought(customer, "succeeded") == await bought(customer) == 2

    async with babysea.terminal(*order, columns=40) as terminal:

        async def begun_again() -> bool:
            return sum("accepted" in record for record in journal(babysea)) == 4

        await eventually(begun_again)
        terminal.interrupt()
        await terminal.shows("Ctrl-C again leaves at once.")
        terminal.interrupt()
        assert await terminal.ended() == 130
    assert await bought(customer) == 4


async def test_the_bar_shows_how_far_it_is(babysea: Program, customer: Customer) -> None:
    name = table(babysea, "prompt\na fox\nx [sandbox:slow:3]\n")
    async with babysea.terminal("batch", name, "-o", "out", "-m", "sandbox/image", columns=40) as terminal:
        await terminal.shows("1/2")
        assert await terminal.ended() == 0
        assert "1/2" not in terminal.text
        assert "succeeded 2" in terminal.text
