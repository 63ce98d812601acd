"""Which addresses webhooks may be sent to, by their text."""

import pytest

from babysea_server.webhooks.urls import check_endpoint_url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hook?tenant=1",
        "https://example.com:443/hook",
        "https://EXAMPLE.com/hook",
        "https://bücher.example/hook",
        "https://93.184.216.34/hook",
        "https://[2606:4700::1111]/hook",
    ],
)
def test_public_https_on_port_443_is_taken(url: str) -> None:
    check_endpoint_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/hook", "starts with https://"),
        ("https://example.com:8443/hook", "port 443"),
        ("https://example.com:80/hook", "port 443"),
        ("https://example.com:0/hook", "port 0"),
        ("https://user:word@example.com/hook", "no user name"),
        ("https://user@example.com/hook", "no user name"),
        ("https://localhost/hook", "not a public name"),
        ("https://printer.local/hook", "not a public name"),
        ("https://intranet/hook", "not a public name"),
        ("https://127.0.0.1/hook", "not public"),
        ("https://10.0.0.1/hook", "not public"),
        ("https://169.254.169.254/latest", "not public"),
        ("https://[::1]/hook", "not public"),
        ("https://[::ffff:127.0.0.1]/hook", "not public"),
        ("https://0x7f000001/hook", "not spelled"),
        ("https://2130706433/hook", "not spelled"),
        ("https://127.1/hook", "not spelled"),
        ("ftp://example.com/hook", "starts with"),
        ("listen:0198f0e0-0000-7000-8000-000000000000", "starts with"),
        ("example.com/hook", "starts with"),
        ("https:///hook", "names a host"),
        ("https://exa mple.com/hook", "no spaces"),
        ("https://example.com/\r\nX-Evil: 1", "no spaces"),
        ("https://example.com\\@10.0.0.1/", "backslashes"),
        ("https://[example.com/hook", "well-formed"),
        ("https://example.com/" + "a" * 2048, "at most 2048"),
    ],
)
def test_everything_else_is_refused_with_a_sentence(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_endpoint_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:3000/hook",
        "http://127.0.0.1:8080/",
        "https://10.0.0.1:8443/hook",
        "http://receiver:9000/hook",
        "https://example.com/hook",
    ],
)
def test_in_development_private_hosts_http_and_any_port_are_taken(url: str) -> None:
    check_endpoint_url(url, allow_private=True)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://user:word@localhost:3000/", "no user name"),
        ("http://localhost:0/", "port 0"),
        ("http://localhost:70000/", "well-formed"),
        ("http:///hook", "names a host"),
        ("http://local host/", "no spaces"),
        ("file:///etc/passwd", "starts with"),
        ("listen:0198f0e0-0000-7000-8000-000000000000", "starts with"),
        ("http://localhost/" + "a" * 2048, "at most 2048"),
    ],
)
def test_development_takes_no_credentials_and_nothing_malformed(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_endpoint_url(url, allow_private=True)
