"""The formulas against values from the literature, and what must hold for all of them."""

from fractions import Fraction
from math import exp, factorial, inf, isclose

import pytest
from bench.capacity.queueing import erlang_c, wait_percentile_s, wait_s


@pytest.mark.parametrize(
    ("servers", "offered", "waits"),
    [
        (1, 0.5, 0.5),  # M/M/1: the probability is the utilisation
        (2, 1.0, 1 / 3),
        (5, 4.0, 0.5541),
        (10, 8.0, 0.4092),
    ],
)
def test_erlang_c_has_the_known_values(servers: int, offered: float, waits: float) -> None:
    assert isclose(erlang_c(servers, offered), waits, abs_tol=5e-4)


def test_erlang_c_is_its_definition() -> None:
    servers, offered = 30, Fraction(25)
    waiting = offered**servers / factorial(servers) * servers / (servers - offered)
    others = sum(offered**number / factorial(number) for number in range(servers))
    assert isclose(erlang_c(servers, 25.0), waiting / (others + waiting))


def test_one_server_waits_as_m_m_1_does() -> None:
    # rho / (mu - lambda) with lambda 80/s, mu 100/s
    assert isclose(wait_s(80, 0.01), 0.8 / 20)
    # P(W > t) = rho exp(-(mu - lambda) t)
    assert isclose(0.8 * exp(-20 * wait_percentile_s(80, 0.01, 99)), 0.01)


def test_nobody_waits_where_there_is_room() -> None:
    assert wait_s(0, 0.01) == 0
    assert wait_percentile_s(1, 0.001, 50) == 0
    assert erlang_c(1000, 1.0) < 1e-100


def test_what_cannot_be_carried_waits_for_ever() -> None:
    assert wait_s(100, 0.01) == wait_percentile_s(100, 0.01, 50) == inf
    assert erlang_c(3, 3) == 1


def test_more_servers_wait_less_and_more_load_waits_more() -> None:
    waits = [wait_s(700, 0.01, servers) for servers in range(8, 20)]
    assert waits == sorted(waits, reverse=True)
    loads = [wait_s(rate, 0.01, 8) for rate in range(0, 800, 50)]
    assert loads == sorted(loads)


def test_a_queue_without_a_server_is_refused() -> None:
    with pytest.raises(ValueError, match="no queue"):
        erlang_c(0, 1.0)
