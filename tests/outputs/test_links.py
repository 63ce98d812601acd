from urllib.parse import parse_qs, urlsplit

import pytest
from tests.outputs.samples import TurnedClock

from babysea_server.outputs.keys import InvalidKeyError
from babysea_server.outputs.links import QUANTUM_S, BadLinkError, ExpiredLinkError, LinkSigner

ORIGIN = "http://localhost:8000"
KEY = "outputs/2026/04/28/g/abc-0.png"


def parameters(url: str) -> tuple[str, str]:
    query = parse_qs(urlsplit(url).query)
    assert set(query) == {"expires", "signature"}
    return query["expires"][0], query["signature"][0]


def test_link_is_valid_for_at_least_its_lifetime(signer: LinkSigner, clock: TurnedClock) -> None:
    clock.turn(17)
    url = signer.sign(ORIGIN, "us", KEY)
    assert url.startswith(f"{ORIGIN}/files/{KEY}?expires=")
    assert 3600 <= signer.verify("us", KEY, *parameters(url)) <= 3600 + QUANTUM_S
    clock.turn(3599)
    assert signer.verify("us", KEY, *parameters(url)) >= 1


def test_link_expires(signer: LinkSigner, clock: TurnedClock) -> None:
    url = signer.sign(ORIGIN, "us", KEY)
    clock.turn(3600 + QUANTUM_S)
    with pytest.raises(ExpiredLinkError):
        signer.verify("us", KEY, *parameters(url))


def test_reads_in_a_row_give_the_same_link(signer: LinkSigner, clock: TurnedClock) -> None:
    clock.turn(1)
    urls = set()
    for _ in range(10):
        urls.add(signer.sign(ORIGIN, "us", KEY))
        clock.turn(29)
    assert len(urls) == 1
    clock.turn(QUANTUM_S)
    assert signer.sign(ORIGIN, "us", KEY) not in urls


def test_link_holds_for_its_own_region_key_and_expiry_only(signer: LinkSigner) -> None:
    expires, signature = parameters(signer.sign(ORIGIN, "us", KEY))
    for region, key, until in [
        ("eu", KEY, expires),
        ("us", KEY.replace("-0", "-1"), expires),
        ("us", KEY, str(int(expires) + 1)),
        ("us", KEY, "0" + expires),
        ("us", KEY, "-5"),
        ("us", KEY, "٣"),
        ("us", KEY, ""),
        ("us", KEY, "9" * 5000),
    ]:
        with pytest.raises(BadLinkError):
            signer.verify(region, key, until, signature)


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text[:-1], lambda text: text + "=", lambda _: "ä"]
)
def test_changed_signature_is_refused(signer: LinkSigner, change: object) -> None:
    expires, signature = parameters(signer.sign(ORIGIN, "us", KEY))
    assert callable(change)
    with pytest.raises(BadLinkError):
        signer.verify("us", KEY, expires, change(signature))


def test_every_process_with_the_secret_accepts_the_link_and_no_other(clock: TurnedClock) -> None:
    link = parameters(LinkSigner(b"a" * 32, clock).sign(ORIGIN, "us", KEY))
    assert LinkSigner(b"a" * 32, clock).verify("us", KEY, *link)
    with pytest.raises(BadLinkError):
        LinkSigner(b"b" * 32, clock).verify("us", KEY, *link)


def test_unsafe_settings_are_refused(clock: TurnedClock) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        LinkSigner(b"short", clock)
    with pytest.raises(ValueError, match="lifetime"):
        LinkSigner(bytes(32), clock, lifetime_s=0)


def test_only_keys_are_signed(signer: LinkSigner) -> None:
    with pytest.raises(InvalidKeyError):
        signer.sign(ORIGIN, "us", "../secret")
