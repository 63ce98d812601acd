"""`babysea batch`: a table of prompts made into a folder of files, in as many runs as it takes."""

import os
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, Any, Self

import typer

from babysea import BabySea, InvalidInputError, LibraryModel, NotFoundError, PermissionDeniedError
from babysea.cli import catalog, fields
from babysea.cli.batch_progress import Progress, summarize
from babysea.cli.batch_work import Result, Worker
from babysea.cli.completion import any_model
from babysea.cli.faults import FAILED, INTERRUPTED, PARTIAL, CommandError
from babysea.cli.journal import NAME, Journal
from babysea.cli.output import in_credits
from babysea.cli.rows import Row, read_rows
from babysea.cli.session import Session, command

_TICK_S = 0.2


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(batch)


def batch(
    session: Session,
    table: Annotated[
        Path, typer.Argument(metavar="CSV", help="Columns: prompt, perhaps model, name, any input.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files and of the journal.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Of rows that name none.", autocompletion=any_model)
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, max=64, help="At a time.")] = 4,
    max_credits: Annotated[
        float | None, typer.Option("--max-credits", min=0, help="Buy nothing if this run would cost more.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds for each row.")] = 1800.0,
    again: Annotated[
        bool, typer.Option("--again", help="Also rows of which it is not known whether they were bought.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of other origin.")] = False,
) -> None:
    """Make a picture or clip of each row of a CSV file.

    The same command again goes on where it ended; nothing is bought twice.
    """
    rows = read_rows(table, model)
    output.mkdir(parents=True, exist_ok=True)
    with session.client() as client, Journal(output, _account(client)) as journal:
        kinds = _Models(session, client)
        open_rows = [row for row in rows if not _is_done(journal, row)]
        _check_files(output, journal, open_rows, overwrite)
        costs = kinds.costs(open_rows)
        _check_costs(session, journal, rows, open_rows, costs, max_credits)
        worker = Worker(client, journal, output, timeout, kinds.complete, again=again)
        results, interrupted = _run(session, worker, open_rows, costs, concurrency)
    skipped = len(rows) - len(open_rows)
    succeeded = skipped + sum(result.error is None for result in results)
    summarize(session.output, len(rows), skipped, results)
    if succeeded < len(rows):
        session.output.say("The same command again goes on from here.")
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if succeeded < len(rows):
        raise typer.Exit(PARTIAL if succeeded else FAILED)


def _account(client: BabySea) -> str | None:
    """Whose batch it is; None when the key may not tell."""
    try:
        return client.status().account_id
    except PermissionDeniedError:
        return None


def _is_done(journal: Journal, row: Row) -> bool:
    entry = journal.entries.get(row.id)
    return entry is not None and entry.done


def _check_files(folder: Path, journal: Journal, rows: Iterable[Row], overwrite: bool) -> None:
    """Files of other origin are not written over, and that is told before anything is bought."""
    if overwrite:
        return
    there = {path.stem: path for path in folder.iterdir() if path.name != NAME}
    for row in rows:
        taken = [there[name] for name in row.file_names() if name in there]
        if taken and row.id not in journal.entries:
            raise CommandError(
                f"{row.label}: {taken[0]} is there already", "Use another folder or name, or --overwrite."
            )


class _Models:
    """The models of a batch: what they need that rows leave out, and what they cost."""

    def __init__(self, session: Session, client: BabySea) -> None:
        self._session = session
        self._client = client
        self._models: dict[str, LibraryModel | None] = {}
        self._costs: dict[str, float | None] = {}

    def complete(self, row: Row) -> dict[str, Any]:
        """The fields of a row, with what has to be chosen and was not."""
        if row.model not in self._models:
            self._models[row.model] = catalog.find(self._session, self._client, row.model)
        return fields.with_duration(self._models[row.model], dict(row.fields))

    def costs(self, rows: Iterable[Row]) -> dict[str, float | None]:
        """What each row costs, by its id; None where the key may not see it.

        Raises:
            CommandError: a model is not there, or does not make that.
            BabySeaError: it cannot be known.
        """
        return {row.id: self._cost(row) for row in rows}

    def _cost(self, row: Row) -> float | None:
        query = fields.estimated_by(self.complete(row))
        known = f"{row.model} {query}"
        if known not in self._costs:
            try:
                self._costs[known] = self._client.estimate(row.model, **query).cost_total_consumed
            except PermissionDeniedError:
                self._costs[known] = None
            except (InvalidInputError, NotFoundError) as error:
                raise CommandError(
                    f"{row.label}: {error}",
                    "`babysea models show MODEL` tells what a model takes.",
                    code=FAILED,
                ) from None
        return self._costs[known]


def _check_costs(
    session: Session,
    journal: Journal,
    rows: Sequence[Row],
    open_rows: Sequence[Row],
    costs: dict[str, float | None],
    max_credits: float | None,
) -> None:
    """Tell what this run is about to do, and refuse what would cost more than it may."""
    running = [row for row in open_rows if (entry := journal.entries.get(row.id)) and entry.generation_id]
    bought = [costs[row.id] for row in open_rows if row not in running]
    known = [cost for cost in bought if cost is not None]
    if max_credits is not None and len(known) < len(bought):
        raise CommandError("the key may not read prices, so --max-credits cannot be kept")
    parts = [f"{len(rows)} rows", f"{len(rows) - len(open_rows)} done before"]
    parts += [f"{len(running)} running"] if running else []
    session.output.say(f"{', '.join(parts)}; {len(bought)} to buy for {in_credits(sum(known))}")
    if max_credits is not None and sum(known) > max_credits:
        raise CommandError(f"that is more than --max-credits {max_credits:g}: nothing was bought")


def _run(
    session: Session,
    worker: Worker,
    rows: Sequence[Row],
    costs: dict[str, float | None],
    concurrency: int,
) -> tuple[list[Result], bool]:
    """Work on all rows; returns what became of those that were begun, and whether Ctrl-C ended it early."""
    results: list[Result] = []
    with (
        _Interrupts(worker) as interrupts,
        Progress(session.output, len(rows)) as progress,
        ThreadPoolExecutor(concurrency) as pool,
    ):
        pending: set[Future[Result | None]] = {pool.submit(worker.run, row) for row in rows}
        while pending:
            done, pending = wait(pending, _TICK_S, FIRST_COMPLETED)
            for future in done:
                result = future.result()
                if result is not None:
                    result.cost = costs[result.row.id] if result.error is None else None
                    results.append(result)
                    progress.add(result)
            interrupts.tell(progress)
    return results, interrupts.count > 0


class _Interrupts:
    """Ctrl-C during a batch: once, nothing new is begun; twice, the program ends at once.

    A handler and not an exception, which could come between a result and its being noted.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._before: Any = None
        self._told = False
        self.count = 0

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def tell(self, progress: Progress) -> None:
        """Say what Ctrl-C did."""
        if self.count and not self._told:
            self._told = True
            progress.note("Nothing new is begun; waiting for what runs. Ctrl-C again leaves at once.")

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._worker.stop()
        if self.count > 1:
            # Threads that still wait would hold up any other end; the journal knows everything.
            os.write(2, b"\nLeft; what runs goes on. The same command again gets it.\n")
            os._exit(INTERRUPTED)
