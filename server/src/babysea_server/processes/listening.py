"""The socket that HTTP is served on."""

import errno
import socket

from babysea_server.processes.faults import StartError

BACKLOG = 2048


def listening_socket(host: str, port: int, *, chosen_with: str = "--port") -> socket.socket:
    """A bound, listening TCP socket; port 0 takes a free one.

    Args:
        chosen_with: where the operator says which port.

    Raises:
        StartError: the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            reason = f"another program listens there; choose another with {chosen_with}"
        else:
            reason = error.strerror or str(error)
        raise StartError(f"cannot listen on {host} port {port}: {reason}") from error
    return listener
