"""What every tool works with, and what tools answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mcp_types import ContentBlock

from babysea import AsyncBabySea, Generation
from babysea.mcp._budget import Budget
from babysea.mcp._shapes import GenerationView, Result

#: Tells the assistant that work goes on: seconds since it began, and a sentence.
Report = Callable[[float, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Desk:
    """The client, what it may spend, and what becomes of a generation that nobody waits for any more."""

    client: AsyncBabySea
    budget: Budget
    cancel_on_abort: bool = False

    @property
    def limit_left(self) -> float | None:
        """What may still be reserved, in credits."""
        left = self.budget.left
        return None if left is None else left / 1_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """The structured result of a tool, and content beside it."""

    result: Result
    content: list[ContentBlock] = field(default_factory=list)


def view(generation: Generation, *, linked: bool = True) -> GenerationView:
    """A generation, under the names of tools."""
    return GenerationView(
        generation_id=generation.id,
        model=generation.model_identifier,
        status=generation.status,
        prompt=generation.generation_prompt,
        provider=generation.generation_provider_used,
        created_at=generation.generation_created_at,
        completed_at=generation.generation_completed_at,
        links=list(generation.urls) if linked and generation.urls else None,
        error=generation.generation_error,
        error_code=generation.generation_error_code,
        note="Its files were removed." if generation.generation_removed else None,
    )
