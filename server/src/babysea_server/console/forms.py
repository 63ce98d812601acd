"""Forms as they come in: bounded, decoded, with their fields as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from babysea_server.console.faults import PageFaultError

BODY_MAX = 64 * 1024
UPLOAD_MAX = 1024 * 1024
_FIELDS_MAX = 500
_PLAIN = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"


class Upload(msgspec.Struct, frozen=True):
    """One file that was sent along."""

    name: str
    content: bytes


class Form:
    """The fields of a form by name; of a repeated one the first, unless all are asked for."""

    def __init__(
        self, fields: Sequence[tuple[str, str]] = (), uploads: Mapping[str, Upload] | None = None
    ) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name, []).append(value)
        self.uploads = dict(uploads or {})

    def text(self, name: str, default: str = "") -> str:
        """A field without white space around it."""
        return self._fields.get(name, [default])[0].strip()

    def raw(self, name: str) -> str:
        """A field as it is: passwords may begin with a space."""
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Every value of a field, e.g. of the boxes that are ticked."""
        return list(self._fields.get(name, []))

    def has(self, name: str) -> bool:
        """Whether the field was sent: a box that is ticked."""
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)


class FieldErrors(dict[str, str]):
    """What is wrong with a form: a sentence by the name of its field; `""` stands for the form as a whole."""


async def read_form(request: Request, *, upload: bool) -> Form:
    """The form of a request.

    Args:
        upload: whether a file may come along: then the body may have 1 MiB beside the fields.

    Raises:
        PageFaultError: 413, 415, 400.
    """
    body = await _body(request, BODY_MAX + (UPLOAD_MAX if upload else 0))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _MULTIPART:
        fields, uploads = await _multipart(request.headers, body, upload=upload)
    elif kind == _PLAIN or not body:
        fields, uploads = _plain(body), {}
    else:
        raise PageFaultError(415, "Not a form", "Only forms are taken here.")
    if any("\0" in text for pair in fields for text in pair):
        raise PageFaultError(400, "Not readable", "The form holds characters that cannot be stored.")
    return Form(fields, uploads)


async def _body(request: Request, most: int) -> bytes:
    too_large = PageFaultError(413, "Too large", f"A form has at most {most // 1024} KiB.")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdecimal() and int(length) > most:
        raise too_large
    chunks = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise PageFaultError(400, "Not complete", "The form ended before it was complete.") from None
    return b"".join(chunks)


def _plain(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX
        )
    except (UnicodeDecodeError, ValueError):
        raise PageFaultError(400, "Not readable", "The form is not well-formed.") from None


async def _multipart(
    headers: Headers, body: bytes, *, upload: bool
) -> tuple[list[tuple[str, str]], dict[str, Upload]]:
    async def stream() -> Any:
        yield body

    parser = MultiPartParser(
        headers, stream(), max_files=1 if upload else 0, max_fields=_FIELDS_MAX, max_part_size=UPLOAD_MAX
    )
    try:
        data = await parser.parse()
    except (MultiPartException, UnicodeDecodeError, LookupError, KeyError):
        raise PageFaultError(400, "Not readable", "The form is not well-formed.") from None
    fields, uploads = [], {}
    for name, value in data.multi_items():
        if isinstance(value, UploadFile):
            content = await value.read()
            await value.close()
            if content:
                uploads[name] = Upload(value.filename or "", content)
        else:
            fields.append((name, value))
    if any(len(each.content) > UPLOAD_MAX for each in uploads.values()):
        raise PageFaultError(413, "Too large", "A file has at most 1 MiB.")
    return fields, uploads
