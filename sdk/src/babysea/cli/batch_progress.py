"""How a batch is doing, and how it ended."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from babysea.cli.batch_work import Result
from babysea.cli.faults import as_record
from babysea.cli.output import Output, cell, in_credits

_BAR_MAX = 40
_REST = 30  # columns of what stands beside the bar


class Progress:
    """A bar on a terminal, else a line for each row; for programs a record for each row besides."""

    def __init__(self, output: Output, total: int) -> None:
        self._output = output
        self._failed = 0
        self._bar: RichProgress | None = None
        if output.err.is_terminal:
            width = max(4, min(_BAR_MAX, output.err.width - _REST))
            self._bar = RichProgress(
                BarColumn(bar_width=width),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=output.err,
                transient=True,
            )
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, result: Result) -> None:
        """A row ended."""
        self._failed += result.error is not None
        if self._output.as_json:
            self._output.json_line(_record(result))
        if self._bar is not None:
            failed = f"{self._failed} failed" if self._failed else ""
            self._bar.update(self._task, advance=1, description=failed)
        elif result.error is None:
            self._output.say(f"{result.row.label}: {', '.join(result.files)}")
        else:
            self._output.say(f"{result.row.label}: {sentence(result.error)}")

    def note(self, text: str) -> None:
        """Say something meanwhile."""
        self._output.say(text)


def summarize(output: Output, total: int, skipped: int, results: Sequence[Result]) -> None:
    """Tell what was done, and which rows were not."""
    failed = [result for result in results if result.error is not None]
    made = len(results) - len(failed)
    costs = [result.cost for result in results if result.cost is not None]
    left = total - skipped - len(results)
    if output.as_json:
        facts = {"rows": total, "done_before": skipped, "succeeded": made, "failed": len(failed)}
        output.json_line({"summary": {**facts, "not_begun": left, "credits": round(sum(costs), 6)}})
        return
    output.record(
        {
            "rows": total,
            "done before": skipped,
            "succeeded": made,
            "failed": len(failed),
            "not begun": left,
            "charged": in_credits(sum(costs)),
        }
    )
    if failed:
        output.gap()
        output.table(
            [
                {"line": result.row.line, "name": result.row.name, "error": sentence(result.error)}
                for result in sorted(failed, key=lambda one: one.row.line)
            ],
            none="",
        )


def sentence(error: Exception | None) -> str:
    """An error in one line."""
    return cell(str(error))


def _record(result: Result) -> dict[str, Any]:
    row = result.row
    return {
        "line": row.line,
        "name": row.name,
        "model": row.model,
        "succeeded": result.error is None,
        "generation_id": result.generation_id,
        "files": list(result.files),
        "credits": result.cost,
        "error": None if result.error is None else as_record(result.error),
    }
