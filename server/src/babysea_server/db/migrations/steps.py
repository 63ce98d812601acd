"""Running the plain SQL files that make up a migration."""

from importlib import resources

from alembic import op


def run_sql(*names: str) -> None:
    """Run each named file as it is, inside the migration's transaction.

    `versions/` holds steps, which are never changed once they are released; `functions/` holds the functions of
    the database in their present form. A step that needs a function changed runs its file again. PL/pgSQL looks
    at a body when it is called, so an early step may run a file that names what a later one brings.
    """
    directory = resources.files("babysea_server.db.migrations")
    connection = op.get_bind()
    for name in names:
        script = (directory / name).read_text(encoding="utf-8")
        # The driver's own `execute` takes many statements at once; the first, empty statement makes the
        # dialect open the transaction that the script then runs in.
        connection.exec_driver_sql("SELECT 1")
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.run_async(lambda driver, script=script: driver.execute(script))
