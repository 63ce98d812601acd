"""A process that holds the embedded server of a data directory until its standard input ends."""

import sys
from pathlib import Path

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.telemetry.logs import configure_logging

configure_logging(format="json", level="warning")
server = EmbeddedPostgres(Path(sys.argv[1]))
server.attach()
sys.stdout.write(f"{server.postmaster_pid()}\n")
sys.stdout.flush()
sys.stdin.read()
server.detach()
