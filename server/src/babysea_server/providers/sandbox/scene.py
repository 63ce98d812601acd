"""What one sandbox output shows, and the numbers that are drawn from it."""

import hashlib
from dataclasses import dataclass

EDGE_MIN_PX = 64
EDGE_MAX_PX = 4096


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture or clip to draw.

    `width` and `height` are pixels, 64..4096 each; any text and any integers are fine elsewhere.

    Raises:
        ValueError: an edge is outside 64..4096.
    """

    prompt: str
    seed: int
    label: str
    """Model and provider being stood in for, e.g. `bfl/flux-schnell via replicate`."""
    width: int
    height: int
    index: int = 0
    """Which output of the request: the same family of colours, another picture."""

    def __post_init__(self) -> None:
        for name, edge in (("width", self.width), ("height", self.height)):
            if not EDGE_MIN_PX <= edge <= EDGE_MAX_PX:
                raise ValueError(f"{name} must be {EDGE_MIN_PX} to {EDGE_MAX_PX} pixels, not {edge}")

    def draws(self, purpose: str, count: int, *, per_index: bool) -> list[float]:
        """`count` numbers in [0, 1), the same on every machine for the same scene and purpose.

        With `per_index` false the numbers are shared by all outputs of the request. The frame's size
        and the label do not enter: the same prompt keeps its picture at another size or provider.
        """
        # Hexadecimal, because decimal conversion refuses integers of more than 4,300 digits.
        parts = (purpose, hex(self.seed), hex(self.index) if per_index else "-", self.prompt)
        key = "\0".join(parts).encode("utf-8", "surrogatepass")
        stream = hashlib.shake_256(key).digest(6 * count)
        return [int.from_bytes(stream[i : i + 6]) / 2**48 for i in range(0, len(stream), 6)]
