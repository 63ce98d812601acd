"""Files of a generation, brought to the disk whole or not at all."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from uuid import uuid4

from babysea._config import Config
from babysea._effects import Fetch, Flow, Sleep
from babysea._errors import (
    BabySeaError,
    DownloadError,
    GenerationError,
    InvalidInputError,
    NetworkError,
    exhausted,
)
from babysea._flows import Flows
from babysea._media import HEAD_BYTES, SUFFIXES, suffix
from babysea._types import Generation
from babysea._waiting import succeeded

FILE_MAX_BYTES = 2 * 1024**3

_DEADLINE_S = 3600.0
_NAME_MAX = 100
_RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the files go: a folder and the beginning of their names, or exactly one file."""

    folder: Path
    stem: str
    exact: str | None
    overwrite: bool
    max_bytes: int

    def path(self, number: int, ending: str) -> Path:
        """The path of one file, counted from 1 (or 0: the only one of a name that was asked for)."""
        count = f"-{number}" if number else ""
        return self.folder / (self.exact or f"{self.stem}{count}.{ending}")


class Download:
    """The flow of `download`."""

    def __init__(self, flows: Flows, config: Config) -> None:
        self._flows = flows
        self._exchange = flows.exchange
        self._config = config

    def run(
        self,
        generation: Generation | str,
        to: str | os.PathLike[str],
        *,
        overwrite: bool,
        name: str | None,
        max_bytes: int,
    ) -> Flow[list[Path]]:
        """Fetch every file beside its place and put them all there at the end."""
        if isinstance(generation, str):
            generation = yield from self._flows.get_generation(generation)
        urls = _urls(generation)
        target = _target(generation, to, overwrite, name, max_bytes, len(urls))
        target.folder.mkdir(parents=True, exist_ok=True)
        files: list[_File] = []
        refreshed = False
        try:
            for index in range(len(urls)):
                number = 0 if name is not None and len(urls) == 1 else index + 1
                files.append(_File(target, number))
                gone = yield from self._fetch(urls[index], files[index])
                if gone is not None and not refreshed:
                    # Links hold for a while only; reading the generation makes new ones.
                    refreshed = True
                    urls = _urls((yield from self._flows.get_generation(generation.id)))
                    if len(urls) <= index:
                        raise DownloadError("A file is there no longer.", generation_id=generation.id)
                    gone = yield from self._fetch(urls[index], files[index])
                if gone is not None:
                    gone.generation_id = generation.id
                    raise gone
            return [file.place() for file in files]
        finally:
            for file in files:
                file.discard()

    def _fetch(self, url: str, file: "_File") -> Flow[BabySeaError | None]:
        """Fetch one file, as often as for any call. Returns the error of a link that does not hold."""
        address, host = self._address(url)
        attempts = 0
        while True:
            attempts += 1
            try:
                yield Fetch(address, host, file, self._exchange.timeout, _DEADLINE_S)
                file.finish()
                return None
            except BabySeaError as error:
                error.attempts = attempts
                pause = self._exchange.pause(error, attempts)
                if pause is None and error.status is not None:
                    return error
                if pause is None or self._exchange.max_retries == 0:
                    raise
                if attempts > self._exchange.max_retries:
                    raise exhausted(error) from error.__cause__
            yield Sleep(pause)

    def _address(self, url: str) -> tuple[str, str | None]:
        """Where to fetch a link. Names such as api.eu.localhost are known to the server only, not to the resolver."""
        own = self._config
        if own.host is None or urlsplit(url).netloc != own.host:
            return url, None
        base, link = urlsplit(own.base_url), urlsplit(url)
        return link._replace(scheme=base.scheme, netloc=base.netloc).geturl(), own.host


def _urls(generation: Generation) -> tuple[str, ...]:
    facts = {"generation_id": generation.id, "generation": generation}
    succeeded(generation)
    if generation.generation_removed:
        raise GenerationError("The files of the generation were removed.", **facts)
    if not generation.urls:
        raise GenerationError(f"The generation is {generation.status} and has no files.", **facts)
    if not all(map(_is_link, generation.urls)):
        raise DownloadError("A link of the generation is not one of http or https.", **facts)
    return generation.urls


def _is_link(url: str) -> bool:
    with suppress(ValueError):
        return urlsplit(url).scheme in ("http", "https")
    return False


def _target(
    generation: Generation,
    to: str | os.PathLike[str],
    overwrite: bool,
    name: str | None,
    max_bytes: int,
    files: int,
) -> Target:
    text, path = os.fspath(to), Path(to)
    # The end of an id is chance; its beginning is time, and alike in all generations of a minute.
    stem = _safe(f"{generation.model_identifier}-{generation.id[-8:]}" if name is None else name)
    is_file = path.suffix.lstrip(".").lower() in SUFFIXES and not text.endswith(("/", os.sep))
    if not is_file or path.is_dir():
        return Target(path, stem, None, overwrite, max_bytes)
    if files > 1:
        raise InvalidInputError(f"{files} files do not fit into one: name a folder")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already")
    return Target(path.parent, stem, path.name, overwrite, max_bytes)


def _safe(name: str) -> str:
    return _UNSAFE.sub("-", name).strip(".-")[:_NAME_MAX] or "file"


class _File:
    """One file on its way: it arrives under another name beside its place."""

    def __init__(self, target: Target, number: int) -> None:
        self._target = target
        self._number = number
        self._part = target.folder / f".{target.stem[:40]}-{uuid4().hex}.part"
        self._file: IO[bytes] | None = None
        self._expected: int | None = None
        self._received = 0
        self._head = b""
        self._ending: str | None = None

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._close()
        self._received, self._head, self._ending = 0, b"", None
        if status != 200:
            raise DownloadError(
                f"A file could not be had: its host answered with HTTP status {status}.",
                status=status,
                retryable=status in _RETRIED_STATUSES,
            )
        length = headers.get("content-length", "")
        self._expected = int(length) if length.isascii() and length.isdigit() else None
        if (self._expected or 0) > self._target.max_bytes:
            raise self._too_large()
        self._file = self._part.open("wb")

    def write(self, chunk: bytes) -> None:
        assert self._file is not None
        self._received += len(chunk)
        if self._received > self._target.max_bytes:
            raise self._too_large()
        if self._ending is None:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self._look()
        self._file.write(chunk)

    def finish(self) -> None:
        """See that it is whole.

        Raises:
            NetworkError: it is not.
            DownloadError: it is neither picture nor video.
            FileExistsError: its place is taken.
        """
        self._close()
        if self._expected is not None and self._received != self._expected:
            raise NetworkError("A file arrived incomplete.")
        if self._ending is None:
            self._look()

    def place(self) -> Path:
        """Put it where it belongs; returns that.

        Raises:
            FileExistsError: its place was taken meanwhile.
        """
        assert self._ending is not None
        path = self._target.path(self._number, self._ending)
        if not self._target.overwrite:
            path.open("xb").close()  # claims the name, whoever else wants it
        try:
            self._part.replace(path)
        except OSError:
            if not self._target.overwrite:
                path.unlink(missing_ok=True)
            raise
        return path

    def discard(self) -> None:
        """Remove what has not been put into its place."""
        self._close()
        with suppress(FileNotFoundError):
            self._part.unlink()

    def _look(self) -> None:
        self._ending = suffix(self._head)
        if self._ending is None:
            raise DownloadError("A file is no picture and no video of a known type.")
        path = self._target.path(self._number, self._ending)
        if path.exists() and not self._target.overwrite:
            raise FileExistsError(f"{path} is there already")

    def _too_large(self) -> DownloadError:
        return DownloadError(f"A file is larger than {self._target.max_bytes} bytes.")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
