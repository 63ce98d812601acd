"""What a process of ours holds open, and to whom."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

#: Fields of /proc/net/tcp: the other end, the state, the inode.
_REMOTE, _STATE, _INODE = 2, 3, 9
_HALF_CLOSED = "08"


def held(pid: int, ports: Mapping[int, str]) -> Counter[str]:
    """How many descriptors a process holds, by what they are.

    Connections whose other end is gone and that the process has not closed are `half closed`.

    Args:
        ports: names of those that a connection leads to; from elsewhere it is `client`.

    Raises:
        OSError: there is no such process.
    """
    sockets = _sockets()
    found: Counter[str] = Counter()
    for entry in (Path("/proc") / str(pid) / "fd").iterdir():
        target = ""
        with suppress(FileNotFoundError):  # closed meanwhile
            target = str(entry.readlink())
        if not target.startswith("socket:["):
            found["file" if target.startswith("/") else "other"] += 1
            continue
        socket = sockets.get(target[len("socket:[") : -1])
        if socket is None:
            found["other"] += 1
            continue
        remote, state = socket
        name = ports.get(remote, "client")
        found[f"{name}, half closed" if state == _HALF_CLOSED else name] += 1
    return found


def _sockets() -> dict[str, tuple[int, str]]:
    """The other end's port, and the state, of every TCP socket of the machine, by inode."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        found[fields[_INODE]] = int(fields[_REMOTE].rpartition(":")[2], 16), fields[_STATE]
    return found
