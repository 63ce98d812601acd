"""A generation while it runs: shown as it goes, and what to do when somebody presses Ctrl-C."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.live import Live
from rich.text import Text

from babysea import BabySea, BabySeaError, Generation
from babysea.cli.faults import FAILED, INTERRUPTED, NOT_CHARGED, CommandError, later
from babysea.cli.output import cell, in_credits, seconds
from babysea.cli.session import Session

_FRAMES = "|/-\\"
_FRAMES_A_SECOND = 8
_QUESTION = (
    "The generation is still running.",
    "  c  cancel it; its credits come back",
    "  k  keep it running, and leave",
    "  w  wait on",
)


class _Shown:
    """The line that is drawn again and again while a generation runs."""

    def __init__(self, cost: str, began: float) -> None:
        self._cost = cost
        self._began = began
        self.status = "accepted"
        self.provider: str | None = None

    def update(self, generation: Generation) -> None:
        """Take over what is known now."""
        self.status = generation.status
        self.provider = provider_of(generation)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def __rich__(self) -> Text:
        frame = _FRAMES[int(self.elapsed * _FRAMES_A_SECOND) % len(_FRAMES)]
        by = f"by {self.provider}" if self.provider else ""
        facts = [part for part in (by, seconds(self.elapsed), self._cost) if part]
        return Text.assemble((frame, "cyan"), " ", (cell(self.status), "bold"), " ", cell(", ".join(facts)))


def provider_of(generation: Generation) -> str | None:
    """Who makes it, as far as that is known before the end: where there is only one who can."""
    order = generation.generation_provider_order
    return generation.generation_provider_used or (order[0] if len(order) == 1 else None)


class Watch:
    """Waits for one generation, `timeout` seconds in all from now on; `output` is where its files are to go."""

    def __init__(
        self,
        session: Session,
        client: BabySea,
        id: str,
        *,
        timeout: float,
        cost: float | None,
        output: str = "",
    ) -> None:
        self._session = session
        self._client = client
        self._id = id
        self._began = time.monotonic()
        self._deadline = self._began + timeout
        self._cost = "" if cost is None else in_credits(cost)
        self._output = output

    def run(self) -> Generation:
        """The generation, once it succeeded.

        Raises:
            BabySeaError: it did not, or not in time.
            CommandError: somebody pressed Ctrl-C, and did not want to wait on.
        """
        while True:
            try:
                with self._showing() as shown:
                    left = max(0.0, self._deadline - time.monotonic())
                    return self._client.wait_for_generation(
                        self._id, timeout=left, on_update=lambda now: self._update(shown, now)
                    )
            except KeyboardInterrupt:
                self._interrupted()

    @contextmanager
    def _showing(self) -> Iterator[_Shown]:
        shown = _Shown(self._cost, self._began)
        console = self._session.output.err
        if not console.is_terminal:
            yield shown
            return
        with Live(shown, console=console, transient=True, refresh_per_second=_FRAMES_A_SECOND):
            yield shown

    def _update(self, shown: _Shown, generation: Generation) -> None:
        shown.update(generation)
        if not self._session.output.err.is_terminal and not generation.done:
            self._session.output.say(f"{generation.status} ({seconds(shown.elapsed)})")

    def _interrupted(self) -> None:
        """Ask what to do; returns to wait on. A second Ctrl-C, at any moment of it, leaves at once."""
        try:
            if not self._session.output.can_ask:
                self._leave()
            match self._answer():
                case "c":
                    self._cancel()
                case "k":
                    self._leave()
        except (KeyboardInterrupt, EOFError):
            self._leave()

    def _answer(self) -> str:
        output = self._session.output
        for line in _QUESTION:
            output.say(line)
        while True:
            sys.stderr.write("[c/k/w]? ")
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            answer = line.strip().lower()[:1]
            if answer and answer in "ckw":
                return answer

    def _cancel(self) -> None:
        try:
            self._client.cancel_generation(self._id)
        except BabySeaError as error:
            if error.code == "BSE3002":
                return  # it ended meanwhile; waiting on tells how
            raise CommandError(
                f"it could not be canceled: {error}", later(self._id, self._output), code=FAILED
            ) from error
        raise CommandError(
            "canceled", NOT_CHARGED, code=INTERRUPTED, generation_id=self._id, generation_status="canceled"
        )

    def _leave(self) -> NoReturn:
        raise CommandError(
            f"left; generation {self._id} is still running",
            later(self._id, self._output),
            code=INTERRUPTED,
            generation_id=self._id,
        )


def outcome(generation: Generation, elapsed: float | None = None) -> str:
    """How it ended, in a sentence."""
    took = generation.generation_metrics_total_time if elapsed is None else elapsed
    by = f" by {generation.generation_provider_used}" if generation.generation_provider_used else ""
    return f"{generation.status}{by}" + (f" in {seconds(took)}" if took is not None else "")
