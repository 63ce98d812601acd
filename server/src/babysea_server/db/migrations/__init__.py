"""The schema, step by step, and which step is the newest."""

from importlib import resources


def newest_revision() -> str:
    """The newest revision this version of the server knows.

    Read from the names of the steps (`v0002_sandbox.py` is 0002), because most processes find the schema as it
    should be and need not load Alembic and SQLAlchemy, half of their start, to see it.
    """
    steps = (resources.files("babysea_server.db.migrations") / "versions").iterdir()
    return max(step.name[1:5] for step in steps if step.name[0] == "v" and step.name[1:5].isdigit())
