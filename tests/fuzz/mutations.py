"""What is done to a valid request before it becomes bytes: its target, headers, framing and body.

A mutation changes the request in place. It returns True when no answer to it may be a success, whatever a lenient
parser thinks of it: what two parsers can read in two ways is refused, never guessed.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.request import CANARY, Request

Mutation = Callable[[Random, Request], bool]

_NASTY = (
    b"\x00", b"\r", b"\n", b"\r\n", b"\t", b"\x0b", b"\x7f", b"\x80", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80",
    "é".encode(), "漢字".encode(), "\u202e".encode(), "\u2028".encode(), "\ufeff".encode(), "𐏿".encode(),
    b"%00", b"%0d%0a", b"%2f", b"%5c", b"%2e%2e", b"%", b"%zz", b"%c0%ae", b"%ed%a0%80", b"%25%32%66",
    b"\\", b"//", b"/./", b"/../", b";", b"#x", b"?", b"?x=1", b"'", b'"', b"{{7*7}}", b"${x}", b" ",
)  # fmt: skip
_NUMBERS = (
    b"-1", b"0", b"-0", b"+1", b"01", b"1.0", b"1e1", b"0x10", b"1_0", b" 1", b"91", b"101", b"2147483647",
    b"2147483648", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"9" * 400,
    b"NaN", b"Infinity", b"", b"true", "٣".encode(), b"1,2", b"1 2",
)  # fmt: skip
_TOKENS = (b"GET", b"HEAD", b"PUT", b"PATCH", b"TRACE", b"OPTIONS", b"CONNECT", b"PRI", b"get", b"PROPFIND")


# ---------------------------------------------------------------------------------------------- request line


def method(random: Random, request: Request) -> bool:
    """Another method, known, unknown or none."""
    request.method = random.choice(
        (*_TOKENS, b"", b"G" * random.randrange(1, 3000), b"GE\x00T", b"M-SEARCH", b"G\xcbT")
    )
    return request.method not in (b"GET", b"OPTIONS")


def version(random: Random, request: Request) -> bool:
    """Another version of HTTP, or what is none."""
    request.version = random.choice(
        (
            b"HTTP/0.9",
            b"HTTP/1.0",
            b"HTTP/2.0",
            b"HTTP/1.2",
            b"HTTP/1.10",
            b"HTTP/9999.1",
            b"http/1.1",
            b"",
            b"X",
        )
    )
    return False


def target_form(random: Random, request: Request) -> bool:
    """Absolute form, authority form, asterisk, and targets that are none."""
    host = random.choice((b"localhost", b"evil.example", b"api.eu.localhost", b"user:pw@localhost", b"[::1]"))
    request.target = random.choice(
        (
            b"http://" + host + request.target,
            b"https://" + host + b":99999" + request.target,
            b"http://",
            b"ftp:///" + request.target,
            host + b":443",
            b"*",
            b"",
            request.target.lstrip(b"/"),
            b"//" + host + request.target,
        )
    )
    return False


def path(random: Random, request: Request) -> bool:
    """Something nasty in the path, dot segments, slashes, length."""
    where = random.randrange(len(request.target) + 1)
    inserted = random.choice((*_NASTY, b"a" * random.choice((2049, 9000, 70000)), b"/" * 500))
    request.target = request.target[:where] + inserted + request.target[where:]
    return False


def query(random: Random, request: Request) -> bool:
    """Unknown, repeated, ill-typed, out-of-range and malformed parameters."""
    names = (
        b"limit",
        b"offset",
        b"days",
        b"count",
        b"duration",
        b"resolution",
        b"audio",
        b"x",
        b"",
        b"limit[]",
    )
    pairs = []
    for _ in range(random.choice((1, 1, 2, 3, 60, 2000))):
        value = random.choice((*_NUMBERS, *_NASTY))
        pairs.append(random.choice(names) + random.choice((b"=", b"=", b"", b"%3d", b"==")) + value)
    joined = random.choice((b"&", b"&", b";", b"&&")).join(pairs)
    request.target = request.target.partition(b"?")[0] + b"?" + joined
    return False


def escape(random: Random, request: Request) -> bool:
    """Percent-escape some characters of the target; some of them mean the same."""
    share = random.choice((0.02, 0.2, 1.0))
    request.target = b"".join(
        b"%%%02x" % byte if random.random() < share else bytes((byte,)) for byte in request.target
    )
    return False


# ---------------------------------------------------------------------------------------------- headers


def host(random: Random, request: Request) -> bool:
    """No host, a wrong one, two, or one that a proxy would have to be trusted for."""
    wrong = random.choice(
        (b"evil.example", b"localhost:x", b"localhost:8000:1", b"", b"localhost.evil.example", b"\xff",
         b"localhost, evil.example", b"a" * 5000, b"[::1", b"localhost\x00", b"http://localhost", b"@localhost")
    )  # fmt: skip
    kind = random.randrange(4)
    if kind == 0:
        request.drop(b"Host")
    elif kind == 1:
        request.put(b"Host", wrong)
    elif kind == 2:
        request.headers.insert(random.randrange(len(request.headers)), (b"host", wrong))
    else:
        request.headers.append((b"X-Forwarded-Host", wrong))
        return False
    return True


def credentials(random: Random, request: Request) -> bool:
    """An `Authorization` that is not one key, once."""
    key = (request.value(b"Authorization") or b"Bearer bye_").partition(b" ")[2]
    if random.random() < 0.2:
        request.headers.append((b"authorization", b"Bearer " + key))
        return True
    wrong = random.choice(
        (b"", b"Bearer", b"Bearer ", b"Basic " + key, key, b"Bearer " + key[:-1], b"Bearer " + key + b"A",
         b"Bearer " + key.swapcase(), b"Bearer " + key + b", Bearer " + key, b'Bearer "' + key + b'"',
         b"Bearer bye_" + b"A" * 40, b"Bearer bye_" + b"A" * 60000, b"Bearer \xff" + key, b"Bearer\x00" + key,
         b"Bearer " + key[:20] + b"\x00" + key[20:], b"Token " + key)
    )  # fmt: skip
    request.put(b"Authorization", wrong)
    return True


def idempotency(random: Random, request: Request) -> bool:
    """Idempotency keys that are none, or one for everybody."""
    canary = CANARY.encode()
    request.put(
        b"Idempotency-Key",
        random.choice(
            (b"", canary + b" x", canary * 40, canary + b"\xe9", canary + b"\x00", b"\xff", canary, canary + b"/",
             canary + b"," + canary, "漢".encode(), b"A" * 255, b"A" * 256, b"..", b"-", canary + b"\t")
        ),
    )  # fmt: skip
    return False


def oversize(random: Random, request: Request) -> bool:
    """One huge header, or very many."""
    if random.random() < 0.5:
        request.headers.append((b"X-Filler", b"f" * random.choice((4000, 17000, 66000, 300000))))
    else:
        count = random.choice((50, 400, 3000))
        name = random.choice((b"X-Same", b"X-Other"))
        request.headers += [(name if name == b"X-Same" else b"X-%d" % n, b"v") for n in range(count)]
    return False


def odd_header(random: Random, request: Request) -> bool:
    """Headers that hold what none may, or that mean something to other servers."""
    nasty = random.choice(_NASTY)
    request.headers.insert(
        random.randrange(len(request.headers) + 1),
        random.choice(
            ((b"X-Odd", b"a" + nasty + b"b"), (b"X" + nasty, b"v"), (b"", b"v"), (b"X-Folded", b"a\r\n b"),
             (b"X-Space ", b"v"), (b" X-Led", b"v"), (b"Upgrade", b"h2c"), (b"Upgrade", b"websocket"),
             (b"Connection", b"upgrade"), (b"Connection", b"close"), (b"Connection", b"keep-alive, " + nasty),
             (b"Expect", b"100-continue"), (b"Expect", b"200-ok"), (b"Origin", b"https://page.example"),
             (b"Access-Control-Request-Method", b"POST"), (b"Range", b"bytes=0-1,5-2"), (b"TE", b"trailers"),
             (b"X-HTTP-Method-Override", b"DELETE"), (b"X-Forwarded-For", b"1.2.3.4, " + nasty),
             (b"Forwarded", b"for=\"[::1]\";host=x"), (b"Accept-Encoding", b"br;q=" + b"1" * 300),
             (b"X-BabySea-SDK-Version", nasty * 50), (b"User-Agent", b"a" * 5000), (b"User-Agent", nasty),
             (b"Cookie", b"a=b; " * 300), (b"Content-Encoding", b"gzip"), (b"HTTP2-Settings", b"AAMAAABk"))
        ),
    )  # fmt: skip
    return False


def smuggled_header(random: Random, request: Request) -> bool:
    """A second header, or a second request, hidden behind a line end in a value."""
    end = random.choice((b"\n", b"\r", b"\r\n", b"\x00\r\n", b"\r\r\n", b"\n\r\n"))
    hidden = random.choice(
        (
            b"X-Hidden: 1",
            b"Content-Length: 0",
            b"Host: evil.example",
            b"\r\nGET /v1/status HTTP/1.1\r\nHost: x",
        )
    )
    request.headers.insert(random.randrange(len(request.headers) + 1), (b"X-Split", b"a" + end + hidden))
    return False


def content_type(random: Random, request: Request) -> bool:
    """Another media type; of a request with a body, one that is refused."""
    request.put(
        b"Content-Type",
        random.choice(
            (b"", b"text/plain", b"application/json; charset=utf-16", b"application/json, text/html",
             b"application/jsonx", b"multipart/form-data; boundary=x", b"application/json;" * 50, b"\xff")
        ),
    )  # fmt: skip
    return bool(request.body)


# ---------------------------------------------------------------------------------------------- framing


def length(random: Random, request: Request) -> bool:
    """A Content-Length that is wrong or none at all."""
    real = len(request.body)
    request.put(
        b"Content-Length",
        random.choice(
            (b"%d" % (real + random.randrange(1, 50)), b"%d" % max(0, real - random.randrange(1, 50)),
             b"000%d" % real, b"%d, %d" % (real, real), b"%d,%d" % (real, real + 1), *_NUMBERS)
        ),
    )  # fmt: skip
    return False


def two_lengths(random: Random, request: Request) -> bool:
    """Content-Length given twice."""
    size = len(request.body)
    request.headers += [(b"Content-Length", b"%d" % size), (b"Content-Length", b"%d" % (size + 1))]
    return True


def both_framings(random: Random, request: Request) -> bool:
    """Transfer-Encoding beside Content-Length, in either order and spelling."""
    encoding = random.choice(
        (b"chunked", b"Chunked", b"identity", b"chunked, identity", b"gzip, chunked", b"x", b"chunked\x0b")
    )
    headers = [(b"Transfer-Encoding", encoding), (b"Content-Length", b"%d" % len(request.body))]
    random.shuffle(headers)
    request.headers += headers
    request.framed = _chunked(random, request.body)
    return True


def chunked(random: Random, request: Request) -> bool:
    """The body in chunks, as it may be."""
    request.headers.append((b"Transfer-Encoding", b"chunked"))
    request.framed = _chunked(random, request.body)
    return False


def bad_chunks(random: Random, request: Request) -> bool:
    """Chunks with sizes, ends and extensions that are wrong or unusual."""
    request.headers.append(
        (b"Transfer-Encoding", random.choice((b"chunked", b"chunked, chunked", b"xchunked")))
    )
    size = random.choice(
        (b"-1", b"0x5", b"g", b"", b"f" * 16, b"f" * 40, b"00000005", b" 5", b"5 ", b"5;a=b", b"5;" + b"e" * 70000,
         b"5\x00", b"5\n", b"7fffffff", b"1,")
    )  # fmt: skip
    request.framed = (
        size + b"\r\n" + request.body + random.choice((b"\r\n0\r\n\r\n", b"0\r\n\r\n", b"", b"\n0\n\n"))
    )
    return False


def trailers(random: Random, request: Request) -> bool:
    """Trailers that look like headers; they are not, whatever they say."""
    trailer = random.choice(
        (b"X-Trailer: 1", b"Host: evil.example", b"Authorization: Bearer bye_x", b"Content-Length: 5",
         b"X-Forwarded-For: 9.9.9.9", b"Idempotency-Key: \xff", b"X-T: " + b"t" * 70000, b"broken", b": x")
    )  # fmt: skip
    request.headers.append((b"Transfer-Encoding", b"chunked"))
    request.framed = _chunked(random, request.body)[:-2] + trailer + b"\r\n\r\n"
    return False


def _chunked(random: Random, body: bytes) -> bytes:
    out, at = b"", 0
    while at < len(body):
        size = random.randrange(1, 40)
        part = body[at : at + size]
        out += b"%x\r\n%s\r\n" % (len(part), part)
        at += size
    return out + b"0\r\n\r\n"


# ---------------------------------------------------------------------------------------------- body


def unexpected_body(random: Random, request: Request) -> bool:
    """A body where there is none, or none where there is one."""
    if request.framed is not None or request.value(b"Content-Length") is not None:
        return False
    takes_one = request.method == b"POST" and b"/generate/" in request.target
    request.body = b"" if takes_one else random.choice((b"{}", b"x" * 200000, b"\x00"))
    return True


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, 1e308, "", " ", "a\x00b", "\ud800", "\udfff\ud800", "é\u0301", "漢字" * 3000,
    "x" * 5001, "\u202e", [], {}, [[]], [None], {"a": {"b": []}}, "fal, fal", "fastest, fal", "https://127.0.0.1/x",
    "https://u:p@example.com/", "file:///etc/passwd", ["https://[::1]/a.png"], ["https://example.com/\ud800"],
    ["http://169.254.169.254/"], ["https://" + "a" * 300 + ".com/"], 2**63, -(2**63) - 1, "1", "'; --", "\x7f\x1b[2J",
)  # fmt: skip
_FIELDS = (
    "generation_prompt", "generation_ratio", "generation_output_format", "generation_output_number",
    "generation_input_file", "generation_duration", "generation_resolution", "generation_generate_audio",
    "generation_input_file_last_content", "generation_provider_order", "seed", "", "__proto__", "a\x00", "\ud800",
)  # fmt: skip


def json_values(random: Random, request: Request) -> bool:
    """Fields with other types, other values, unknown names."""
    document: dict[str, Any] = {"generation_prompt": f"A lighthouse, {CANARY}"}
    for _ in range(random.randrange(1, 4)):
        document[random.choice(_FIELDS)] = random.choice(_VALUES)
    request.body = json.dumps(document, ensure_ascii=random.random() < 0.7).encode("utf-8", "surrogatepass")
    return False


def json_text(random: Random, request: Request) -> bool:
    """A text that is not quite JSON, or JSON at its limits."""
    deep = random.choice((15, 16, 17, 500, 20000))
    prompt = b'"generation_prompt":"%s"' % CANARY.encode()
    request.body = random.choice(
        (
            b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep, b"[" * deep,
            b"{" + prompt + b"," + prompt + b"}", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":1e999}',
            b'{"generation_output_number":' + b"9" * 5000 + b"}", b'{"generation_prompt":"\xff\xfe"}',
            b'{"generation_prompt":"\\ud800"}', b'{"generation_prompt":"\\u0000"}', b'{"\\u0000":1}',
            b"\xef\xbb\xbf{" + prompt + b"}", b"{" + prompt + b"} x", b"{" + prompt + b",}", b"{" + prompt, b"null",
            b"[]", b'"x"', b"1", b"", b" ", b"\x00", b"{'a':1}", b"{" + prompt + b"/**/}", b'{"a":0123}',
            b'{"a":"\x01"}', b'{"a":1e-400}', b'{"generation_prompt":"' + b"p" * 102400 + b'"}',
            b"{" + b",".join(b'"k%d":1' % n for n in range(4000)) + b"}", b" " * 102401, b" " * 200000,
            ("{" + prompt.decode() + "}").encode("utf-16"), b'{"a":"\\x"}', b'{"a":\x0b1}',
        )
    )  # fmt: skip
    return False


def smuggled_request(random: Random, request: Request) -> bool:
    """A whole request as the body of another."""
    if request.framed is not None or request.value(b"Content-Length") is not None:
        return False
    inner = Request(
        b"GET", b"/v1/status", [header for header in request.headers if header[0] != b"Content-Type"]
    )
    request.body = inner.encode()
    return True


#: Everything above, by name; a finding names the mutations of its case.
MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        method, version, target_form, path, query, escape,
        host, credentials, idempotency, oversize, odd_header, smuggled_header, content_type,
        length, two_lengths, both_framings, chunked, bad_chunks, trailers,
        unexpected_body, json_values, json_text, smuggled_request,
    )
}  # fmt: skip
#: What makes sense only where there is a body, and a few that are drawn for such requests alone.
OF_BODIES = ("json_values", "json_text", "chunked", "trailers", "idempotency")
