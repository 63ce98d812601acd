"""The schema, step by step, and which step is the newest.

There are two chains of steps, so that processes of two versions can work on one database while an upgrade is under
way. `versions/` prepares: it only adds, and runs before the first process of a version starts. `finishing/` takes away
what no process of that version needs, and runs when the last older process has ended. A preparing step never counts on
a finishing one: between versions the order is any in which each chain keeps its own.
"""

from importlib import resources

#: Advisory locks of this class say who uses a database: each long-lived process holds, shared, the number of the newest
#: finishing step that it knows. ASCII "baby".
USERS_CLASS = 0x62616279


def known_revisions() -> frozenset[str]:
    """The preparing steps that this version of the server knows; another one was made by a newer version.

    Read from the names of the steps (`v0002_sandbox.py` is 0002), because most processes find the schema as it
    should be and need not load Alembic and SQLAlchemy, half of their start, to see it.
    """
    return _steps("versions", "v")


def newest_revision() -> str:
    """The newest preparing step that this version of the server knows."""
    return max(known_revisions())


def known_finishing_revisions() -> frozenset[str]:
    """The finishing steps that this version of the server knows (`f0001_old_prices.py` is 0001)."""
    return _steps("finishing", "f")


def newest_finishing_revision() -> str:
    """The newest finishing step that this version of the server knows; 0000: there is none."""
    return max(known_finishing_revisions(), default="0000")


def _steps(folder: str, letter: str) -> frozenset[str]:
    steps = (resources.files("babysea_server.db.migrations") / folder).iterdir()
    return frozenset(step.name[1:5] for step in steps if step.name[0] == letter and step.name[1:5].isdigit())
