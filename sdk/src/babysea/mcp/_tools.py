"""The table of tools."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import mcp_types as wire

from babysea.mcp import _generating, _reading, _shapes
from babysea.mcp._desk import Desk, Reply, Report


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: what is said of it, what it takes and gives, and what it does."""

    name: str
    title: str
    description: str
    arguments: type[_shapes.Arguments]
    result: type[_shapes.Result]
    run: Callable[[Desk, Any, Report], Awaitable[Reply]]
    changes: bool = False
    destructive: bool = False
    idempotent: bool = True

    def described(self) -> wire.Tool:
        """The tool as the protocol lists it."""
        return wire.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.arguments.model_json_schema(),
            output_schema=self.result.model_json_schema(),
            annotations=wire.ToolAnnotations(
                title=self.title,
                read_only_hint=not self.changes,
                destructive_hint=self.destructive,
                idempotent_hint=self.idempotent,
                open_world_hint=True,
            ),
        )


TOOLS = (
    Tool(
        "list_models",
        "List models",
        "Models for pictures and videos, with prices in credits (1 credit is 1 USD).",
        _shapes.ListModels,
        _shapes.Models,
        _reading.list_models,
    ),
    Tool(
        "get_model",
        "Describe a model",
        "What one model takes, what it costs, and an example. Read it before using a model for the first time.",
        _shapes.GetModel,
        _shapes.ModelDetails,
        _reading.get_model,
    ),
    Tool(
        "estimate",
        "Estimate the cost",
        "What generations would cost, and whether the account can pay them. Costs nothing.",
        _shapes.EstimateCost,
        _shapes.Cost,
        _reading.estimate,
    ),
    Tool(
        "generate",
        "Generate a picture or video",
        "Generate with a model, which spends the user's credits; failed generations are refunded. Waits and returns "
        "the pictures themselves, up to 1 MiB of original files, and signed links to all files; videos are links. A "
        "video often takes longer than a call may: pass wait=false and use get_generation.",
        _shapes.Generate,
        _shapes.Generated,
        _generating.generate,
        changes=True,
        idempotent=False,
    ),
    Tool(
        "get_generation",
        "Read a generation",
        "Status, fresh links and pictures of one generation.",
        _shapes.GetGeneration,
        _shapes.GenerationView,
        _reading.get_generation,
    ),
    Tool(
        "list_generations",
        "List generations",
        "The account's generations, newest first. Links are in get_generation.",
        _shapes.ListGenerations,
        _shapes.Generations,
        _reading.list_generations,
    ),
    Tool(
        "cancel_generation",
        "Cancel a generation",
        "Cancel a generation that is pending or processing; its credits are returned.",
        _shapes.CancelGeneration,
        _shapes.Canceled,
        _reading.cancel_generation,
        changes=True,
        destructive=True,
    ),
    Tool(
        "account_balance",
        "Read the balance",
        "The account's credits, and what this server may still spend of them.",
        _shapes.NoArguments,
        _shapes.Balance,
        _reading.account_balance,
    ),
)
