"""Exit code 0 if the process of this container answers `/healthz`, or the path that is given, else 1.

An API tells its health at `BABYSEA_METRICS_PORT`, a worker at the next port, a console alone at the one after that; a
container runs one of them.
"""

import http.client
import os
import sys

_TIMEOUT_S = 3.0


def answers(port: int, path: str) -> bool:
    """Whether a process listens at a port of the loopback address and answers the path with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """The exit code."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    first = int(os.environ.get("BABYSEA_METRICS_PORT", "9100"))
    return 0 if any(answers(port, path) for port in range(first, first + 3)) else 1


if __name__ == "__main__":
    sys.exit(main())
