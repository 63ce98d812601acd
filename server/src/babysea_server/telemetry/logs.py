"""Logging: structlog to standard error, as lines for people or as JSON; what libraries log comes out the same way."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

import structlog

_SECRET_NAMES = frozenset(
    {"authorization", "cookie", "api_key", "secret", "password", "token", "master_key", "dsn", "prompt"}
)


def configure_logging(*, format: str, level: str) -> None:
    """Set up structlog for this process. Values named like secrets never come out.

    Args:
        format: `console`, `json`, or `auto`: the first on a terminal, the second elsewhere.
        level: the least that is logged; of libraries, warnings at the least.
    """
    if format == "auto":
        format = "console" if sys.stderr.isatty() else "json"
    chain: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
        structlog.processors.StackInfoRenderer(),
        *([structlog.processors.format_exc_info] if format == "json" else []),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=28,
            # The default one prints the variables of every frame, keys and prompts among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    ours = [*chain, renderer]
    structlog.configure(
        processors=ours,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _Chain(ours)],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[libraries], force=True)
    logging.captureWarnings(True)


class _Chain:
    """Processors one after the other, as they are when they are asked."""

    def __init__(self, processors: Sequence[structlog.typing.Processor]) -> None:
        self._processors = processors

    def __call__(self, logger: object, method: str, event: structlog.typing.EventDict) -> Any:
        done: Any = event
        for process in self._processors:
            done = process(logger, method, done)
        return done


def name_process(process: str) -> None:
    """Have every line say from now on of what kind this process is, e.g. `worker`."""

    def name(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("process", process)
        return event

    # In place: loggers that were used before hold this very list, and so does the handler of the libraries.
    structlog.get_config()["processors"].insert(0, name)


def _redact(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, value in event.items():
        if name.lower() in _SECRET_NAMES:
            event[name] = "(hidden)"
        elif isinstance(value, dict):
            event[name] = _redact(_logger, _method, dict(value))
    return event
