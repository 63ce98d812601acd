"""A server that speaks S3; `python -m tests.emulators.s3 --folder F --port 0` runs it and prints its address.

One bucket, path style: whole and multipart puts, heads, ranged gets, single and bulk deletes, listings in pages. Every
request must be signed with Signature Version 4, by the documented rules and over the very bytes that arrived, so that
what is signed wrong is found. Objects are files in the folder: they outlive the process, and when its disk is full the
answer is 507.
"""

import argparse
import asyncio
import hashlib
import hmac
import itertools
import json
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

#: The bucket, its region and whom it lets in.
BUCKET = "files"
REGION = "us-east-1"
ACCESS_KEY = "s3-access-key"
SECRET_KEY = "s3-secret-key"

_BODY_MAX = 256 * 1024 * 1024
_SKEW_MAX = timedelta(minutes=15)
#: S3's own least size of every part but the last.
_PART_MIN = 5 * 1024 * 1024
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/,]+)/(?P<date>\d{8})/(?P<region>[^/,]+)/s3/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class S3Error(Exception):
    """An answer of the kind S3 gives when it refuses."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or code


class Stored(NamedTuple):
    """One object."""

    data: bytes
    content_type: str
    etag: str
    modified: datetime


class Bucket:
    """The objects, in a folder, and the HTTP on top.

    Args:
        folder: one file for each object; made when it is missing.
        page_keys: most keys in one page of a listing, whatever is asked for.
    """

    def __init__(self, folder: Path, *, page_keys: int = 1000) -> None:
        self._objects = folder / "objects"
        self._uploads = folder / "uploads"
        for made in (self._objects, self._uploads):
            made.mkdir(parents=True, exist_ok=True)
        self._page_keys = page_keys
        self._numbers = itertools.count()
        self.listings = 0
        """Pages of listings that were asked for."""
        self.puts = 0
        """Objects that were put, whole or from parts."""

    def keys(self) -> list[str]:
        """All keys, in order."""
        return sorted(unquote(path.name) for path in self._objects.iterdir() if not path.name.startswith("."))

    def read(self, key: str) -> Stored:
        """One object.

        Raises:
            S3Error: there is none.
        """
        path = self._path(key)
        try:
            content, modified = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:
            raise S3Error(404, "NoSuchKey") from None
        head, _, data = content.partition(b"\n")
        described = json.loads(head)
        at = datetime.fromtimestamp(int(modified), UTC)
        return Stored(data, described["type"], described["etag"], at)

    def write(self, key: str, data: bytes, content_type: str, etag: str) -> None:
        """Put one object: readers see all of it or nothing."""
        head = json.dumps({"type": content_type, "etag": etag}).encode()
        self.puts += 1
        self._replace(self._path(key), head + b"\n" + data)

    def delete(self, key: str) -> None:
        """Delete one object, if it is there."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        name = quote(key, safe="")
        if not key or len(name) > 240:
            raise S3Error(400, "KeyTooLongError" if key else "InvalidArgument")
        return self._objects / name.replace(".", "%2E", 1) if name.startswith(".") else self._objects / name

    def _replace(self, path: Path, content: bytes) -> None:
        made = path.parent / f".{os.getpid()}.{next(self._numbers)}"
        try:
            made.write_bytes(content)
            made.replace(path)
        except OSError as error:
            made.unlink(missing_ok=True)
            raise S3Error(507, "InsufficientStorage", str(error)) from error

    # The HTTP on top.

    def app(self) -> web.Application:
        """The server's application."""
        app = web.Application(client_max_size=_BODY_MAX)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
            _check_signature(request, body)
            bucket, _, key = unquote(request.raw_path.partition("?")[0].lstrip("/")).partition("/")
            if bucket != BUCKET:
                raise S3Error(404, "NoSuchBucket")
            return self._operation(request, key, body)
        except S3Error as error:
            text = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
            return web.Response(
                status=error.status,
                text="" if request.method == "HEAD" else text,
                content_type="application/xml",
            )

    def _operation(self, request: web.Request, key: str, body: bytes) -> web.StreamResponse:
        query = request.query
        match request.method:
            case "GET" if query.get("list-type") == "2" and not key:
                return self._list(request)
            case "GET" | "HEAD" if key:
                return self._get(key, request)
            case "PUT" if "uploadId" in query:
                return self._put_part(query["uploadId"], query["partNumber"], body)
            case "PUT" if key and "x-amz-copy-source" not in request.headers:
                return self._put(key, request, body)
            case "DELETE" if "uploadId" in query:
                self._forget(self._upload(query["uploadId"]))
                return web.Response(status=204)
            case "DELETE" if key:
                self.delete(key)
                return web.Response(status=204)
            case "POST" if "delete" in query and not key:
                return self._delete_many(request, body)
            case "POST" if "uploads" in query and key:
                return self._begin(key, request)
            case "POST" if "uploadId" in query:
                return self._complete(key, query["uploadId"], body)
        raise S3Error(501, "NotImplemented")

    def _put(self, key: str, request: web.Request, body: bytes) -> web.Response:
        if request.headers.get("If-None-Match") == "*" and key in self.keys():
            raise S3Error(412, "PreconditionFailed")
        etag = f'"{_md5(body)}"'
        self.write(key, body, request.headers.get("Content-Type", "binary/octet-stream"), etag)
        return web.Response(headers={"ETag": etag})

    def _get(self, key: str, request: web.Request) -> web.Response:
        stored = self.read(key)
        data, status = stored.data, 200
        headers = {
            "ETag": stored.etag,
            "Last-Modified": format_datetime(stored.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": stored.content_type,
        }
        if asked := _RANGE.fullmatch(request.headers.get("Range", "")):
            start, end = _span(asked[1], asked[2], len(data))
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data, status = data[start:end], 206
        return web.Response(status=status, body=data, headers=headers)

    def _delete_many(self, request: web.Request, body: bytes) -> web.Response:
        if not {"content-md5", "x-amz-checksum-sha256", "x-amz-checksum-crc32"} & {
            name.lower() for name in request.headers
        }:
            raise S3Error(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
        keys = _texts(body, "Key")
        if len(keys) > 1000:
            raise S3Error(400, "MalformedXML")
        for key in keys:
            self.delete(key)
        return _xml("DeleteResult", "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys))

    def _list(self, request: web.Request) -> web.Response:
        self.listings += 1
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        most = min(int(query.get("max-keys", "1000")), self._page_keys)
        entries: dict[str, bool] = {}
        for key in self.keys():
            if key.startswith(prefix):
                rest, cut, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
                entries[prefix + rest + cut if cut else key] = bool(cut)
        names = [name for name in entries if name > after]
        page = names[:most]
        body = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if entries[name]
            else self._item(name)
            for name in page
        )
        more = len(names) > most
        if more:
            body += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        head = f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        return _xml("ListBucketResult", f"{head}<IsTruncated>{str(more).lower()}</IsTruncated>{body}")

    def _item(self, key: str) -> str:
        stored = self.read(key)
        return (
            f"<Contents><Key>{escape(key)}</Key><LastModified>{stored.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.data)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )

    def _begin(self, key: str, request: web.Request) -> web.Response:
        upload = uuid.uuid4().hex
        folder = self._uploads / upload
        folder.mkdir()
        self._replace(folder / "type", request.headers.get("Content-Type", "binary/octet-stream").encode())
        named = f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
        return _xml("InitiateMultipartUploadResult", named)

    def _upload(self, upload: str) -> Path:
        folder = self._uploads / upload
        if not re.fullmatch(r"[0-9a-f]{32}", upload) or not folder.is_dir():
            raise S3Error(404, "NoSuchUpload")
        return folder

    def _put_part(self, upload: str, number: str, body: bytes) -> web.Response:
        if not 1 <= int(number) <= 10_000:
            raise S3Error(400, "InvalidArgument")
        self._replace(self._upload(upload) / f"part-{int(number):05}", body)
        return web.Response(headers={"ETag": f'"{_md5(body)}"'})

    def _complete(self, key: str, upload: str, body: bytes) -> web.Response:
        folder = self._upload(upload)
        numbers = [int(number) for number in _texts(body, "PartNumber")]
        etags = [etag.strip('"') for etag in _texts(body, "ETag")]
        if numbers != sorted(set(numbers)) or not numbers:
            raise S3Error(400, "InvalidPartOrder")
        try:
            parts = [(folder / f"part-{number:05}").read_bytes() for number in numbers]
        except FileNotFoundError:
            raise S3Error(400, "InvalidPart") from None
        if [_md5(part) for part in parts] != etags:
            raise S3Error(400, "InvalidPart")
        if any(len(part) < _PART_MIN for part in parts[:-1]):
            raise S3Error(400, "EntityTooSmall")
        digests = b"".join(bytes.fromhex(etag) for etag in etags)
        etag = f'"{_md5(digests)}-{len(parts)}"'
        self.write(key, b"".join(parts), (folder / "type").read_text(), etag)
        self._forget(folder)
        return _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>{escape(etag)}</ETag>")

    @staticmethod
    def _forget(upload: Path) -> None:
        for path in upload.iterdir():
            path.unlink()
        upload.rmdir()


def _check_signature(request: web.Request, body: bytes) -> None:
    """Hold a request's signature against Signature Version 4.

    The rules are those of "Create a signed AWS API request" in AWS's IAM user guide; for S3 a path is encoded once.

    Raises:
        S3Error: unsigned, signed wrong, by somebody unknown, or long ago.
    """
    found = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if found is None:
        raise S3Error(403, "AccessDenied", "not signed with AWS4-HMAC-SHA256")
    if found["id"] != ACCESS_KEY:
        raise S3Error(403, "InvalidAccessKeyId")
    if found["region"] != REGION:
        raise S3Error(400, "AuthorizationHeaderMalformed", f"the region is {REGION}")
    stamp = request.headers.get("x-amz-date", "")
    try:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise S3Error(403, "AccessDenied", "no x-amz-date") from None
    if abs(datetime.now(UTC) - at) > _SKEW_MAX or not stamp.startswith(found["date"]):
        raise S3Error(403, "RequestTimeTooSkewed")
    told = request.headers.get("x-amz-content-sha256", "")
    if told not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
        raise S3Error(400, "XAmzContentSHA256Mismatch")
    signed = found["headers"].split(";")
    must = {name for name in map(str.lower, request.headers) if name.startswith("x-amz-")} | {"host"}
    if signed != sorted(signed) or not must <= set(signed):
        raise S3Error(403, "AccessDenied", "headers are not signed that must be")
    path, _, query = request.raw_path.partition("?")
    canonical = "\n".join(
        [
            request.method,
            quote(unquote(path), safe="/-._~"),
            _canonical_query(query),
            *(f"{name}:{' '.join(','.join(request.headers.getall(name, [''])).split())}" for name in signed),
            "",
            found["headers"],
            told,
        ]
    )
    scope = f"{found['date']}/{REGION}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for word in (found["date"], REGION, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), found["signature"]):
        raise S3Error(403, "SignatureDoesNotMatch", f"signed must be: {canonical}")


def _canonical_query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    encoded = sorted(
        (quote(unquote_plus(name), safe="-._~"), quote(unquote_plus(value), safe="-._~"))
        for name, _, value in pairs
    )
    return "&".join(f"{name}={value}" for name, value in encoded)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """Start and end of a range header's bytes, the end not included."""
    if not first:
        start, end = max(0, size - int(last or 0)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise S3Error(416, "InvalidRange")
    return start, end


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _texts(body: bytes, name: str) -> list[str]:
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        raise S3Error(400, "MalformedXML") from None
    return [found.text or "" for found in root.iter() if found.tag.rpartition("}")[2] == name]


def _xml(name: str, content: str) -> web.Response:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{space}">{content}</{name}>'
    return web.Response(text=text, content_type="application/xml")


def environment(address: str) -> dict[str, str]:
    """What a server that is to keep its files here has in its environment, by name."""
    return {
        "STORAGE_URL": f"s3://{BUCKET}/base",
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
    }


@asynccontextmanager
async def serving(bucket: Bucket, port: int = 0) -> AsyncIterator[str]:
    """Serve a bucket on a port of the loopback address, any free one by default; yields its address."""
    runner = web.AppRunner(bucket.app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _serve(folder: Path, port: int) -> None:
    async with serving(Bucket(folder), port) as address:
        sys.stdout.write(f"S3 listening on {address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulators.s3", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the objects are kept")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.folder, arguments.port))
    except KeyboardInterrupt:
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
