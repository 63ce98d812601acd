"""The text of a URL decides whether the server may be sent there."""

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.kit.urls import check_public_url, is_public_address


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://example.com",
        "HTTPS://EXAMPLE.COM/A?b=c#d",
        "https://example.com:8443/x",
        "https://example.com./x",
        "https://bücher.example/x",
        "https://my_bucket.s3.amazonaws.com/key?X-Sig=a%20b",
        "http://8.8.8.8/x",
        "http://[2606:4700::1111]:8080/x",
        "https://localhost.example.com/",
        "https://1.example.com/",
        "https://example.com/" + "a" * 2028,
    ],
)
def test_public_url_passes(url: str) -> None:
    check_public_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://printer.local/",
        "http://metadata.google.internal/",
        "http://router.home.arpa/",
        "http://redis/",
        "http://localhost。/",
        "http://ⓛocalhost/",
    ],
)
def test_private_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="public name"):
        check_public_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://127.0.0.1:80/",
        "http://１２７.0.0.1/",
        "http://10.1.2.3/",
        "http://100.64.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://172.31.255.255/",
        "http://192.168.0.1/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://198.51.100.1/",
        "http://[::]/",
        "http://[::1]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://[ff02::1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::8.8.8.8]/",
        "http://[64:ff9b:1::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:4136:e378::1]/",
        "http://[2001:db8::1]/",
    ],
)
def test_special_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address is not public"):
        check_public_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://08.8.8.8/",
        "http://999.1.1.1/",
        "http://1.2.3.4.5/",
        "http://[v1.a]/",
        "http://[2606:4700::1%25eth0]/",
    ],
)
def test_address_in_another_spelling_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not spelled as plain"):
        check_public_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/", "starts with https"),
        ("file:///etc/passwd", "starts with https"),
        ("javascript:alert(1)", "starts with https"),
        ("data:image/png;base64,AA", "starts with https"),
        ("//example.com/", "starts with https"),
        ("", "starts with https"),
        ("https:///x", "names a host"),
        ("https:example.com", "names a host"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://example.com@127.0.0.1/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com:99999/", "well-formed"),
        ("https://example.com:x/", "well-formed"),
        ("https://[::1/", "well-formed"),
        ("https://example.com:0/", "port 0"),
        ("https://exa mple.com/", "spaces"),
        ("https://example.com/\n", "spaces"),
        ("https://example.com\\@evil.example/", "backslashes"),
        ("https://example.com/\x7f", "control"),
        ("https://example..com/", "valid name"),
        ("https://-example.com/", "valid name"),
        ("https://exa%6dple.com/", "valid name"),
        ("https://" + "a" * 64 + ".com/", "valid name"),
        ("https://example.com/" + "a" * 2029, "2048"),
    ],
)
def test_malformed_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_public_url(url)


@given(st.text(max_size=60))
def test_any_text_passes_or_raises_value_error(text: str) -> None:
    for url in (text, "https://" + text, "http://[" + text + "]/"):
        with contextlib.suppress(ValueError):
            check_public_url(url)


@given(st.ip_addresses())
def test_public_address_is_global_unicast(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public_address(address):
        assert not address.is_private
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_multicast
        assert not address.is_reserved
        assert not address.is_unspecified
