"""The newest revision is known without Alembic, and is the one Alembic would go to."""

import subprocess
import sys

from babysea_server.db.migrate import head
from babysea_server.db.migrations import newest_revision


def test_file_names_and_alembic_agree_on_the_newest_revision() -> None:
    assert newest_revision() == head()


def test_what_starts_a_process_loads_neither_alembic_nor_sqlalchemy() -> None:
    """They are half of a start, and only a process that migrates needs them."""
    imports = "import sys, babysea_server.cli.main, babysea_server.processes.serve; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True)
    assert {"alembic", "sqlalchemy"}.isdisjoint(shown.stdout.split())
    assert "babysea_server.db.cluster" in shown.stdout.split()
