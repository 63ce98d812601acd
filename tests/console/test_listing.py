"""Lists, charts and what templates show: pure functions."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from starlette.datastructures import QueryParams

from babysea_server.console import charts
from babysea_server.console.charts import Series
from babysea_server.console.icons import _PATHS, icon
from babysea_server.console.listing import Listing, Page
from babysea_server.console.navigation import SIDEBAR
from babysea_server.console.templating import ago, json_data, moment, network
from babysea_server.console.templating import credits as dollars

_SORTS = {"name": "lower(k.name)", "created": "k.created_at"}
NOW = datetime(2026, 4, 28, 12, tzinfo=UTC)


def _read(query: str) -> Listing:
    return Listing.read("/p", QueryParams(query), sorts=_SORTS, default="-created", filters=["state"])


@pytest.mark.parametrize(
    "query", ["", "sort=evil;drop&page=0&size=7", "page=-1", "page=abc", "page=99999999999", "size=25x"]
)
def test_what_makes_no_sense_is_as_if_it_were_not_there(query: str) -> None:
    listing = _read(query)
    assert (listing.order_by, listing.size, listing.offset) == ("k.created_at DESC NULLS LAST", 25, 0)
    assert listing.url() == "/p"


def test_an_address_keeps_search_sort_size_and_filters() -> None:
    listing = _read("q=%20a%26b%20&sort=name&size=50&page=3&state=active&other=1")
    assert (listing.q, listing.order_by, listing.offset) == ("a&b", "lower(k.name) ASC NULLS FIRST", 100)
    assert listing.url(page=4) == "/p?q=a%26b&sort=name&size=50&page=4&state=active"
    assert listing.url(size=100) == "/p?q=a%26b&sort=name&size=100&state=active"
    assert listing.sort_url("name") == "/p?q=a%26b&sort=-name&size=50&state=active"
    assert listing.aria_sort("name") == "ascending"
    assert listing.aria_sort("created") == "none"


def test_a_page_knows_whether_there_is_another() -> None:
    listing = _read("")
    assert Page.of(list(range(25)), listing, 25).has_more is False
    page = Page.of(list(range(26)), listing)
    assert page.has_more
    assert len(page.rows) == 25


def test_a_chart_is_told_to_those_who_do_not_see_it() -> None:
    drawn = charts.bars(
        "Runs <b>", ["Mo", "Tu"], [Series("ok", [1, 2]), Series("bad", [0, 12000], tone="bad")]
    )
    assert "<title>Runs &lt;b&gt;</title>" in drawn
    assert 'role="img"' in drawn
    assert "<td>12k</td>" in drawn
    assert 'class="bar tone-bad"' in drawn
    assert "style=" not in drawn
    assert len(re.findall("<rect", drawn)) == 3


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [0.0, 1e9, 3.0]])
def test_a_chart_is_drawn_of_anything(values: list[float]) -> None:
    labels = [str(number) for number in range(len(values))]
    for draw in (charts.lines, charts.bars):
        drawn = draw("t", labels, [Series("s", values)])
        assert "nan" not in drawn
        heights = [float(found) for found in re.findall(r' y="([\d.-]+)"', drawn)]
        assert all(0 <= height <= 220 for height in heights)


@pytest.mark.parametrize(
    ("amount", "places", "shown"),
    [
        (12_480_000, 3, "$12.480"),
        (1_234_567_891_000, 3, "$1,234,567.891"),
        (-500, 3, "-$0.001"),
        (12_480_001, None, "$12.480001"),
        (0, 3, "$0.000"),
        (-1_500_000, None, "-$1.5"),
    ],
)
def test_credits_are_shown_as_dollars(amount: int, places: int | None, shown: str) -> None:
    assert dollars(amount, places) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "just now"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86_400 * 3, "3 days ago"),
    ],
)
def test_how_long_ago_is_told_with_the_moment_itself(seconds: int, shown: str) -> None:
    html = ago(NOW - timedelta(seconds=seconds), NOW)
    assert shown in html
    assert 'datetime="2026-04-2' in html
    assert "Never" in ago(None, NOW)
    assert moment(NOW) == '<time datetime="2026-04-28T12:00:00Z">2026-04-28 12:00 UTC</time>'


def test_data_for_scripts_cannot_end_their_element() -> None:
    html = json_data("x", {"prompt": "</script><script>alert(1)</script>&<!--"})
    assert html.count("<") == 2
    assert "\\u003c/script\\u003e" in html


def test_a_single_address_is_shown_without_its_prefix() -> None:
    assert [
        network(entry) for entry in ("203.0.113.7/32", "10.0.0.0/8", "2001:db8::1/128", "2001:db8::/32")
    ] == [
        "203.0.113.7",
        "10.0.0.0/8",
        "2001:db8::1",
        "2001:db8::/32",
    ]


def test_the_sidebar_is_the_one_of_the_specification_and_every_icon_is_drawn() -> None:
    assert [entry.label for entry in SIDEBAR] == [
        "Metrics",
        "API keys",
        "Webhook",
        "Logs",
        "Credits",
        "Playground",
        "Models",
        "Domains",
        "Settings",
        "Members",
        "Billing",
        "My profile",
        "Notifications",
        "Activity",
    ]
    assert all(entry.icon in _PATHS for entry in SIDEBAR)
    assert 'aria-label="a &lt; b"' in icon("key", "a < b")
