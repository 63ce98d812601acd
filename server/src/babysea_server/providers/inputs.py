"""Input files for providers that take bytes: fetched, and checked before anything is bought with them."""

import asyncio

import msgspec

from babysea_server.errors import (
    FILE_DOWNLOAD_ERROR,
    FILE_LOAD_ERROR,
    FILE_SIZE_EXCEEDED,
    FILE_TOO_LARGE,
    FILE_TOO_SMALL,
    PARAMETER_OUT_OF_RANGE,
    UNSUPPORTED_FILE_FORMAT,
    ErrorSpec,
)
from babysea_server.media.measure import measure, measure_audio
from babysea_server.media.sniff import sniff, sniff_audio
from babysea_server.media.types import FrameTooLargeError, Kind, Media, UnreadableMediaError
from babysea_server.providers.base import (
    AnswerLostError,
    AnswerTooLargeError,
    NeverSentError,
    Request,
    Transport,
)

_KINDS = {"image": "picture", "video": "video", "audio": "sound"}


class InputRefusedError(Exception):
    """An input file that cannot be used: one of the codes BSE2002 to BSE2009, and a sentence for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class InputRule(msgspec.Struct, frozen=True):
    """What a provider takes. Sides and pixels are of one picture or frame; None is no limit.

    `content_types` narrows `kinds`; None takes all that are known, SVG excepted, which providers cannot read.
    """

    kinds: frozenset[Kind]
    max_bytes: int
    content_types: frozenset[str] | None = None
    min_width: int = 1
    max_width: int | None = None
    min_height: int = 1
    max_height: int | None = None
    max_pixels: int | None = None
    max_seconds: float | None = None


class InputFile(msgspec.Struct, frozen=True):
    """A checked file. Sides are None for sound, and `seconds` for pictures."""

    data: bytes
    content_type: str
    extension: str
    width: int | None
    height: int | None
    seconds: float | None


def check_input(data: bytes, rule: InputRule) -> InputFile:
    """Tell what a file is from its bytes, and hold it against the rule.

    Uses the processor, up to some tenths of a second for a video: not for the event loop. Large pictures are
    measured and not decoded.

    Raises:
        InputRefusedError: too many bytes, another format, broken, too large or small, or too long.
    """
    if len(data) > rule.max_bytes:
        raise _too_many_bytes(rule)
    media = _recognised(data, rule)
    try:
        if media.kind == "audio":
            file = InputFile(
                data, media.content_type, media.extension, None, None, measure_audio(data, media)
            )
        else:
            size = measure(data, media)
            file = InputFile(data, media.content_type, media.extension, size.width, size.height, size.seconds)
    except FrameTooLargeError as error:
        raise _refused(FILE_TOO_LARGE, str(error)) from error
    except UnreadableMediaError as error:
        raise _refused(FILE_LOAD_ERROR, str(error)) from error
    _check_sides(file, rule)
    if file.seconds is not None and rule.max_seconds is not None and file.seconds > rule.max_seconds:
        raise _refused(
            PARAMETER_OUT_OF_RANGE,
            f"the file is {file.seconds:.1f} seconds long; at most {rule.max_seconds:g} are taken",
        )
    return file


async def load_input(transport: Transport, url: str, rule: InputRule, *, timeout_s: float) -> InputFile:
    """Fetch a file and check it, in a thread.

    Args:
        transport: one that may be sent to addresses nobody vouches for.
        timeout_s: for fetching.

    Raises:
        InputRefusedError: as for `check_input`, and when the file cannot be had (BSE2009); asking again may help
            then and only then.
    """
    try:
        answer = await transport.send(Request("GET", url), timeout_s=timeout_s, body_max=rule.max_bytes)
    except AnswerTooLargeError as error:
        raise _too_many_bytes(rule) from error
    except NeverSentError as error:
        raise _refused(FILE_DOWNLOAD_ERROR, "the file's host cannot be reached") from error
    except AnswerLostError as error:
        raise _refused(FILE_DOWNLOAD_ERROR, "the file's host did not send it whole and in time") from error
    if answer.status != 200:
        raise _refused(FILE_DOWNLOAD_ERROR, f"the file's host answers with HTTP {answer.status}")
    return await asyncio.to_thread(check_input, answer.body, rule)


def _recognised(data: bytes, rule: InputRule) -> Media:
    if not data:
        raise _refused(FILE_LOAD_ERROR, "the file is empty")
    media = sniff_audio(data) or sniff(data)
    if media is None:
        raise _refused(UNSUPPORTED_FILE_FORMAT, "the file is of no known type")
    if media.kind not in rule.kinds:
        wanted = " or ".join(_KINDS[kind] for kind in sorted(rule.kinds))
        raise _refused(UNSUPPORTED_FILE_FORMAT, f"the file is {media.content_type}; a {wanted} is wanted")
    taken = rule.content_types
    if media.extension == "svg" if taken is None else media.content_type not in taken:
        raise _refused(UNSUPPORTED_FILE_FORMAT, f"files of type {media.content_type} are not taken")
    return media


def _check_sides(file: InputFile, rule: InputRule) -> None:
    if file.width is None or file.height is None:
        return
    says = f"the file has {file.width} x {file.height} pixels"
    if file.width < rule.min_width or file.height < rule.min_height:
        raise _refused(FILE_TOO_SMALL, f"{says}; at least {rule.min_width} x {rule.min_height} are needed")
    for side, name, largest in (
        (file.width, "wide", rule.max_width),
        (file.height, "high", rule.max_height),
    ):
        if largest is not None and side > largest:
            raise _refused(FILE_TOO_LARGE, f"{says}; it may be at most {largest} {name}")
    if rule.max_pixels is not None and file.width * file.height > rule.max_pixels:
        raise _refused(FILE_TOO_LARGE, f"{says}; at most {rule.max_pixels} in all are taken")


def _too_many_bytes(rule: InputRule) -> InputRefusedError:
    return _refused(FILE_SIZE_EXCEEDED, f"the file has more than {rule.max_bytes} bytes")


def _refused(spec: ErrorSpec, message: str) -> InputRefusedError:
    return InputRefusedError(spec.code, message)
