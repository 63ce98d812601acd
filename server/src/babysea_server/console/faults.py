"""What ends a page other than by an answer of its own."""

from collections.abc import Mapping


class PageFaultError(Exception):
    """The request is refused; the message is a sentence for people.

    Args:
        status: of the answer.
        title: a few words, the heading of the page.
    """

    def __init__(
        self, status: int, title: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.title = title
        self.headers = dict(headers or {})


def not_found() -> PageFaultError:
    """Nothing here, or nothing for this user: nobody is told which."""
    return PageFaultError(
        404, "Page not found", "There is nothing at this address, or it is not yours to see."
    )


def forbidden(message: str) -> PageFaultError:
    """The role does not allow it."""
    return PageFaultError(403, "Not allowed", message)


def forged() -> PageFaultError:
    """A form that no page of ours can have sent."""
    return PageFaultError(
        403,
        "This form has expired",
        "Nothing was changed. Go back, load the page again, and send the form once more.",
    )


def too_many(seconds: int) -> PageFaultError:
    """Too many tries."""
    return PageFaultError(
        429,
        "Too many attempts",
        f"Wait for {seconds} seconds, then try again.",
        {"retry-after": str(seconds)},
    )
