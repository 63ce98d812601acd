"""Lists: what is searched for, how it is sorted and which page of it, read from the address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import msgspec
from starlette.datastructures import QueryParams

Row = TypeVar("Row")

SIZES = (25, 50, 100)
_SEARCH_MAX = 200
_PAGE_MAX = 10_000


class Column(msgspec.Struct, frozen=True):
    """A column of a table."""

    name: str
    label: str
    sort: bool = False
    """Whether its heading sorts; `name` is then one of the listing's sorts."""
    kind: str = "text"
    """`text`, `number` (set at the end of the line), `actions` (no visible heading)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the reader of a list asks for: all of it from the address, so that it can be kept and shared."""

    path: str
    """Of the page."""
    q: str
    """Searched for; empty for everything."""
    sort: str
    """One of the sorts."""
    descending: bool
    size: int
    page: int
    """From 1."""
    cursor: str
    """Where a list without page numbers goes on; empty at its beginning."""
    filters: Mapping[str, str]
    """The other parameters of the page, those that are set."""
    default: str
    sorts: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        path: str,
        query: QueryParams,
        *,
        sorts: Mapping[str, str],
        default: str,
        filters: Sequence[str] = (),
        size: int = SIZES[0],
    ) -> "Listing":
        """What the address says; what makes no sense is as if it was not there.

        Args:
            sorts: SQL expressions by the name of the column: the only text of it that comes into a statement.
            default: one of them, with `-` before it for falling.
            filters: names of further parameters of this page.
        """
        wanted = query.get("sort", default)
        if wanted.removeprefix("-") not in sorts:
            wanted = default
        page = query.get("page", "1")
        sized = query.get("size", "")
        return cls(
            path=path,
            q=query.get("q", "").replace("\0", "").strip()[:_SEARCH_MAX],
            sort=wanted.removeprefix("-"),
            descending=wanted.startswith("-"),
            size=int(sized) if sized in map(str, SIZES) else size,
            page=int(page) if page.isascii() and page.isdecimal() and 1 <= int(page[:6]) <= _PAGE_MAX else 1,
            cursor=query.get("after", "")[:100],
            filters={name: query[name][:_SEARCH_MAX] for name in filters if query.get(name)},
            default=default,
            sorts=sorts,
        )

    @property
    def order_by(self) -> str:
        """What follows ORDER BY; the caller adds what makes it unique."""
        return f"{self.sorts[self.sort]} {'DESC NULLS LAST' if self.descending else 'ASC NULLS FIRST'}"

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.page - 1) * self.size

    @property
    def is_narrowed(self) -> bool:
        """Whether something is searched for or left out."""
        return bool(self.q or self.filters)

    def url(self, **changes: Any) -> str:
        """The address of the same list with something changed; None takes a parameter away."""
        present: dict[str, Any] = {
            "q": self.q or None,
            "sort": None if self._sorted == self.default else self._sorted,
            "size": None if self.size == SIZES[0] else self.size,
            "page": None if self.page == 1 else self.page,
            "after": self.cursor or None,
            **self.filters,
        }
        if not changes.keys() <= {"page", "after"}:
            present |= {"page": None, "after": None}  # another list begins at its beginning
        present |= changes
        text = urlencode({name: value for name, value in present.items() if value not in (None, "")})
        return f"{self.path}?{text}" if text else self.path

    def sort_url(self, name: str) -> str:
        """The address of the same list sorted by a column, the other way round where it is already."""
        falling = name == self.sort and not self.descending
        return self.url(sort=f"-{name}" if falling else name)

    def aria_sort(self, name: str) -> str:
        """How a column is sorted, as screen readers are told."""
        if name != self.sort:
            return "none"
        return "descending" if self.descending else "ascending"

    @property
    def _sorted(self) -> str:
        return f"-{self.sort}" if self.descending else self.sort


class Page(msgspec.Struct, Generic[Row], frozen=True):
    """One page of a list."""

    rows: Sequence[Row]
    total: int | None = None
    """Of all pages, where it is cheap to know; at most what was counted."""
    next_cursor: str | None = None
    """Where the next page goes on, in a list without page numbers."""
    has_more: bool = False

    @classmethod
    def of(cls, rows: Sequence[Row], listing: Listing, total: int | None = None) -> "Page[Row]":
        """A page from the rows that were read, one more than fit if there are more."""
        return cls(rows[: listing.size], total, has_more=len(rows) > listing.size)
