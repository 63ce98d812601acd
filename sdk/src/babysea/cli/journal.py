"""What a batch has done, in its folder: written before it is done, so that a run that was killed buys nothing twice.

A file of JSON lines. A row's life in it: `key` (about to be sent with this idempotency key), `accepted` (it is this
generation), then `done` (these are its files) or `failed` (it ended without; the next run tries anew with a new key).
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any, Self
from uuid import uuid4

from babysea.cli.faults import FAILED, CommandError

NAME = ".babysea-batch.jsonl"

#: A server knows a key for 24 hours; an hour is left for clocks that differ.
KEY_KNOWN_S = 23 * 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a row is."""

    key: str
    keyed_at: float
    generation_id: str | None = None
    files: Sequence[str] | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.files is not None


class Journal:
    """The journal of one folder, which one run at a time has. Safe to use from threads.

    Raises:
        CommandError: another run has it, or it is of another account than `owner`, where that is known.
    """

    def __init__(self, folder: Path, owner: str | None, now: Callable[[], float] = time.time) -> None:
        self._path = folder / NAME
        self._now = now
        self._lock = Lock()
        self._file: IO[bytes] = self._path.open("ab+")
        try:
            _lock(self._file, self._path)
            self.entries: dict[str, Entry] = {}
            owners = self._read()
            if owner is not None and owners - {owner}:
                raise CommandError(
                    f"{folder} has a batch of another account or server", "Use another folder.", code=FAILED
                )
            if owner is not None and not owners:
                self._write({"owner": owner})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def key(self, row: str) -> str:
        """The key to send a row with; it is on the disk when this returns."""
        entry = self.entries.get(row)
        if entry is not None:
            return entry.key
        entry = Entry(str(uuid4()), self._now())
        self._write({"row": row, "key": entry.key, "at": entry.keyed_at})
        self.entries[row] = entry
        return entry.key

    def accepted(self, row: str, generation_id: str) -> None:
        """The row is this generation."""
        self._write({"row": row, "accepted": generation_id})
        self.entries[row] = replace(self.entries[row], generation_id=generation_id)

    def done(self, row: str, files: Sequence[str]) -> None:
        """The row has these files."""
        self._write({"row": row, "done": list(files)})
        self.entries[row] = replace(self.entries[row], files=files)

    def failed(self, row: str, code: str | None) -> None:
        """The row ended without files and was not charged: another run tries it anew."""
        self._write({"row": row, "failed": code})
        self.entries.pop(row, None)

    def is_lost(self, row: str) -> bool:
        """Whether it cannot be known any more if the row was bought: sent so long ago that its key is forgotten."""
        entry = self.entries.get(row)
        return (
            entry is not None
            and entry.generation_id is None
            and not entry.done
            and self._now() - entry.keyed_at > KEY_KNOWN_S
        )

    def _write(self, record: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self) -> set[str]:
        """Take over what is written; returns whose it is."""
        self._file.seek(0)
        data = self._file.read()
        owners = set()
        for line in data.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a run was killed in the middle of writing it, so it had not acted on it
            if "owner" in record:
                owners.add(record["owner"])
            else:
                self._take(record)
        if data and not data.endswith(b"\n"):
            self._file.write(b"\n")
        return owners

    def _take(self, record: dict[str, Any]) -> None:
        row = record["row"]
        match record:
            case {"key": key, "at": at}:
                self.entries[row] = Entry(key, at)
            case {"accepted": id}:
                self.entries[row] = replace(self.entries[row], generation_id=id)
            case {"done": files}:
                self.entries[row] = replace(self.entries[row], files=files)
            case {"failed": _}:
                self.entries.pop(row, None)


def _lock(file: IO[bytes], path: Path) -> None:
    """Have the file for this process alone; the system gives it back when the process ends, however that is."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CommandError(f"another batch is working in {path.parent}", code=FAILED) from None
