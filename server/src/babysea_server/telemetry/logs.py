"""Logging: structlog to standard error, as lines for people or as JSON."""

import logging
import sys

import structlog


def configure_logging(*, format: str, level: str) -> None:
    """Set up structlog for this process. Values named like secrets never come out."""
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
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.StackInfoRenderer(),
            *([structlog.processors.format_exc_info] if format == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)


_SECRET_NAMES = frozenset(
    {"authorization", "cookie", "api_key", "secret", "password", "token", "master_key", "dsn", "prompt"}
)


def _redact(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, value in event.items():
        if name.lower() in _SECRET_NAMES:
            event[name] = "(hidden)"
        elif isinstance(value, dict):
            event[name] = _redact(_logger, _method, dict(value))
    return event
