"""A list that changes while it is read, page by page."""

from babysea._effects import Flow
from babysea._flows import Flows
from babysea._types import Generation, Page

_PAGE = 100


class Pages:
    """All generations in turn, newest first, none twice and none left out.

    New ones come in at the beginning and push the others on; deleted ones let them move up. So each page is asked for
    from the last one that was seen. When a page holds none that was seen, the place is looked for: back to the
    beginning, and from there, past what is new, forward.
    """

    def __init__(self, flows: Flows, limit: int | None) -> None:
        self._flows = flows
        self._left = limit
        self._size = _PAGE if limit is None else min(_PAGE, limit)
        self._seen: set[str] = set()
        self._offset = 0
        self._forward = False
        self._lost = False  # all that were seen are deleted: whatever is there was not seen
        self._over = limit is not None and limit <= 0

    def next(self) -> Flow[tuple[Generation, ...]]:
        """The next ones; empty at the end."""
        while not self._over:
            page = yield from self._flows.list_generations(self._size, self._offset)
            fresh = self._take(page)
            if fresh:
                return fresh
        return ()

    def _take(self, page: Page[Generation]) -> tuple[Generation, ...]:
        is_end = not page.items or page.offset + len(page.items) >= page.total
        known = [index for index, item in enumerate(page.items) if item.id in self._seen]
        if self._seen and not known and not self._lost:
            self._look_for_place(page, is_end)
            return ()
        self._forward = False
        self._over = is_end
        self._offset = page.offset + max(1, len(page.items) - 1)
        fresh = page.items[known[-1] + 1 if known else 0 :]
        if self._left is not None:
            fresh = fresh[: self._left]
            self._left -= len(fresh)
            self._over = self._over or self._left == 0
        self._seen.update(item.id for item in fresh)
        return fresh

    def _look_for_place(self, page: Page[Generation], is_end: bool) -> None:
        if not self._forward and page.offset > 0:
            self._offset = max(0, page.offset - self._size + 1)
        elif is_end:
            self._lost, self._offset = True, 0
        else:
            self._forward, self._offset = True, page.offset + len(page.items)
