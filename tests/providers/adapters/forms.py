"""Forms as a server reads them."""

from email import message_from_bytes
from email.policy import HTTP
from typing import Any

from babysea_server.providers.base import Request


def parts_of(request: Request) -> dict[str, list[Any]]:
    """The parts of a `multipart/form-data` request by name: texts, or files as (name, type, bytes)."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + (request.body or b""), policy=HTTP)
    assert message.get_content_type() == "multipart/form-data"
    found: dict[str, list[Any]] = {}
    for part in message.iter_parts():
        name, filename = part.get_param("name", header="content-disposition"), part.get_filename()
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        value: Any = data.decode() if filename is None else (filename, part.get_content_type(), data)
        found.setdefault(str(name), []).append(value)
    return found
