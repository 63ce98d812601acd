"""A picture for each line of a file: `python async_batch.py prompts.txt pictures`. Can be stopped and run again."""

import asyncio
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from babysea import AsyncBabySea, Job, Outcome

MODEL = "bfl/flux-schnell"


async def main(prompts: Iterable[str], folder: Path) -> int:
    """Make them, four at a time; returns how many failed."""
    # The same prompt has the same key: within 24 hours a second run finds what the first one bought.
    jobs = [Job(MODEL, prompt, idempotency_key=sha256(prompt.encode()).hexdigest()) for prompt in prompts]

    def show(done: int, total: int, outcome: Outcome) -> None:
        prompt = outcome.job.fields["generation_prompt"]
        print(f"{done}/{total} {prompt}: {outcome.error or 'done'}", file=sys.stderr)

    async with AsyncBabySea() as client:
        outcomes = await client.generate_many(jobs, concurrency=4, on_progress=show)
        for outcome in outcomes:
            if outcome.generation is not None:
                print(*await client.download(outcome.generation, folder, overwrite=True))
    return sum(outcome.error is not None for outcome in outcomes)


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    failed = asyncio.run(main(filter(None, map(str.strip, lines)), Path(sys.argv[2])))
    sys.exit(1 if failed else 0)
