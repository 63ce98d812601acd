"""The schema, step by step, and which step is the newest."""

from importlib import resources


def known_revisions() -> frozenset[str]:
    """The revisions this version of the server knows; another one was made by a newer version.

    Read from the names of the steps (`v0002_sandbox.py` is 0002), because most processes find the schema as it
    should be and need not load Alembic and SQLAlchemy, half of their start, to see it.
    """
    steps = (resources.files("babysea_server.db.migrations") / "versions").iterdir()
    return frozenset(step.name[1:5] for step in steps if step.name[0] == "v" and step.name[1:5].isdigit())


def newest_revision() -> str:
    """The newest revision this version of the server knows."""
    return max(known_revisions())
