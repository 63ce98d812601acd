"""The client that awaits: the same as `BabySea`, method by method."""

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from babysea import _operations as operations
from babysea._clock import Clock
from babysea._config import configure
from babysea._download import FILE_MAX_BYTES, Download
from babysea._exchange import Exchange
from babysea._flows import Flows, OnProgress
from babysea._health import AsyncHealth
from babysea._job import Job, Outcome
from babysea._library import AsyncLibrary
from babysea._paging import Pages
from babysea._types import (
    Accepted,
    Account,
    Billing,
    Canceled,
    Deleted,
    Estimate,
    Generation,
    Page,
    Status,
    Usage,
)
from babysea._waiting import OnUpdate

if TYPE_CHECKING:
    import httpx


class AsyncBabySea:
    """A client of one server with one key. Close it, or use it in a `with` statement.

    `api_key` and `base_url` are else taken from the environment, `BABYSEA_API_KEY` and `BABYSEA_BASE_URL`; without
    either the server is `http://localhost:8000`. `region` (us, eu, jp) chooses the host: it replaces `{region}` in
    the base URL, or the region of a host like `api.us.example.com`; on one's own machine the Host header tells it.

    `timeout` is in seconds, for every single read and write of an attempt; connecting has 5. Errors that can pass
    are retried up to `max_retries` times. An `http_client` of your own brings its proxy, TLS and connections along,
    and is not closed with this one.

    Raises:
        ConfigurationError: there is no key, or the address, the region or a number makes no sense.

    Example:
        async with AsyncBabySea() as client:
            generation = await client.generate_and_wait("sandbox/image", "a red fox in fresh snow")
            print(await client.download(generation))
    """

    health: AsyncHealth
    """How providers, models, storage and cache do."""
    library: AsyncLibrary
    """Which providers and models there are."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        region: str | None = None,
        base_url: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        http_client: "httpx.AsyncClient | None" = None,
        _clock: Clock | None = None,
    ) -> None:
        # httpx takes longer to import than all of this package; who only receives webhooks never needs it.
        from babysea._driver_async import AsyncDriver
        from babysea._wire import Wire

        self._config = configure(api_key, region, base_url, os.environ)
        exchange = Exchange(timeout, max_retries, _clock or Clock())
        self._flows = Flows(exchange)
        self._files = Download(self._flows, self._config)
        self._driver = AsyncDriver(Wire(self._config, exchange.clock), http_client)
        self.health = AsyncHealth(self._driver, self._flows)
        self.library = AsyncLibrary(self._driver, self._flows)

    def __repr__(self) -> str:
        return f"AsyncBabySea(base_url={self._config.base_url!r}, api_key={self._config.shown_key!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they are of an `http_client` of your own.

        Example:
            await client.aclose()
        """
        await self._driver.close()

    async def status(self) -> Status:
        """Check the connection and the key.

        Raises:
            BabySeaError: as every method may, of a class that says what went wrong.

        Example:
            status = await client.status()
            print(status.account_id, status.apikey_prefix)
        """
        return await self._driver.run(self._flows.read(Status, operations.STATUS))

    async def usage(self, days: int = 30) -> Usage:
        """Read requests, generations and cost of the last 1 to 90 days, today included.

        Example:
            usage = await client.usage(days=7)
            print(usage.usage_total_generations, usage.usage_total_estimated_cost)
        """
        return await self._driver.run(self._flows.read(Usage, operations.USAGE, query={"days": days}))

    async def account(self) -> Account:
        """Read the account.

        Example:
            account = await client.account()
            print(account.account_name)
        """
        return await self._driver.run(self._flows.read(Account, operations.ACCOUNT))

    async def billing(self) -> Billing:
        """Read the plan and the balance in credits; 1 credit is 1 USD.

        Example:
            billing = await client.billing()
            print(billing.billing_plan, billing.billing_credit_balance)
        """
        return await self._driver.run(self._flows.read(Billing, operations.BILLING))

    async def estimate(
        self,
        model: str,
        *,
        count: int = 1,
        duration: int | None = None,
        resolution: str | None = None,
        audio: bool | None = None,
    ) -> Estimate:
        """Estimate what `count` generations would cost in credits; `duration` is in seconds of video.

        Raises:
            NotFoundError: there is no such model.
            InvalidInputError: the model does not make this duration or resolution.

        Example:
            estimate = await client.estimate("sandbox/video", count=10, duration=5, resolution="720p")
            print(estimate.cost_total_consumed, estimate.credit_balance_can_afford)
        """
        query = {"count": count, "duration": duration, "resolution": resolution, "audio": audio}
        return await self._driver.run(self._flows.estimate(model, **query))

    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        *,
        ratio: str | None = None,
        output_format: str | None = None,
        output_number: int | None = None,
        input_file: str | Sequence[str] | None = None,
        input_file_last_content: str | None = None,
        duration: int | None = None,
        resolution: str | None = None,
        generate_audio: bool | None = None,
        provider_order: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Accepted:
        """Start a generation and return as soon as it is durably accepted.

        What the model takes is in `client.library.model(...)` and in the server's reference; names are the API's,
        with or without `generation_`. `input_file` are URLs. `provider_order` are providers in the order in which
        to try them, or `fastest`.

        A retry buys nothing twice: all attempts carry one Idempotency-Key, which is `idempotency_key` or made for
        this call. With a key of your own also another call, within 24 hours, gets the same generation.

        Raises:
            InvalidInputError: a field is not what the model takes; `details["field"]` names it.
            InsufficientCreditsError: the balance does not cover it.
            NotFoundError: there is no such model.
            ConflictError: the idempotency key was used for another request.
            RateLimitError: there are too many requests, or too many generations in flight.

        Example:
            accepted = await client.generate("sandbox/image", "a red fox", ratio="16:9", seed=7)
            print(accepted.id)
        """
        job = Job(
            model,
            prompt,
            ratio=ratio,
            output_format=output_format,
            output_number=output_number,
            input_file=input_file,
            input_file_last_content=input_file_last_content,
            duration=duration,
            resolution=resolution,
            generate_audio=generate_audio,
            provider_order=provider_order,
            idempotency_key=idempotency_key,
            **fields,
        )
        return await self._driver.run(self._flows.generate(job))

    async def generate_and_wait(
        self,
        model: str,
        prompt: str | None = None,
        *,
        ratio: str | None = None,
        output_format: str | None = None,
        output_number: int | None = None,
        input_file: str | Sequence[str] | None = None,
        input_file_last_content: str | None = None,
        duration: int | None = None,
        resolution: str | None = None,
        generate_audio: bool | None = None,
        provider_order: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        timeout: float = 900.0,
        poll_interval: float | None = None,
        on_update: OnUpdate | None = None,
        **fields: Any,
    ) -> Generation:
        """Start a generation and wait until it succeeded, both within `timeout` seconds.

        Arguments and errors are those of `generate` and `wait_for_generation`.

        Example:
            generation = await client.generate_and_wait("sandbox/image", "a red fox", output_number=2)
            print(generation.urls)
        """
        job = Job(
            model,
            prompt,
            ratio=ratio,
            output_format=output_format,
            output_number=output_number,
            input_file=input_file,
            input_file_last_content=input_file_last_content,
            duration=duration,
            resolution=resolution,
            generate_audio=generate_audio,
            provider_order=provider_order,
            idempotency_key=idempotency_key,
            **fields,
        )
        return await self._driver.run(
            self._flows.generate_and_wait(
                job, timeout=timeout, poll_interval=poll_interval, on_update=on_update
            )
        )

    async def get_generation(self, id: str) -> Generation:
        """Read one generation. Its links are signed anew by every read.

        Raises:
            NotFoundError: the account has no generation with this id.

        Example:
            accepted = await client.generate("sandbox/image", "a red fox")
            print(await client.get_generation(accepted.id))
        """
        return await self._driver.run(self._flows.get_generation(id))

    async def list_generations(self, *, limit: int = 50, offset: int = 0) -> Page[Generation]:
        """Read a page of 1 to 100 generations, newest first, passing over the first `offset`.

        Example:
            page = await client.list_generations(limit=10)
            print(page.total, [generation.id for generation in page])
        """
        return await self._driver.run(self._flows.list_generations(limit, offset))

    async def iter_generations(self, *, limit: int | None = None) -> AsyncIterator[Generation]:
        """Go through all generations, or `limit` of them, newest first, reading pages on the way.

        None comes twice and none is left out, also when others are made or deleted meanwhile.

        Example:
            async for generation in client.iter_generations(limit=200):
                print(generation.id, generation.status)
        """
        pages = Pages(self._flows, limit)
        while items := await self._driver.run(pages.next()):
            for item in items:
                yield item

    async def cancel_generation(self, id: str) -> Canceled:
        """Cancel a generation in flight; its credits come back.

        When an attempt did it and its answer was lost, that counts: the members that only the answer told are None.

        Raises:
            NotFoundError: the account has no generation with this id.
            ConflictError: it is final already (BSE3002).

        Example:
            accepted = await client.generate("sandbox/video", "waves [sandbox:slow:60]", duration=5)
            canceled = await client.cancel_generation(accepted.id)
            print(canceled.credits_refunded)
        """
        return await self._driver.run(self._flows.cancel_generation(id))

    async def delete_generation(self, id: str) -> Deleted:
        """Delete a final generation and its files.

        When an attempt did it and its answer was lost, that counts, and `files_deleted` is None.

        Raises:
            NotFoundError: the account has no generation with this id.
            ConflictError: it is still in flight: cancel it first (BSE3003).

        Example:
            generation = await client.generate_and_wait("sandbox/image", "a red fox")
            deleted = await client.delete_generation(generation.id)
            print(deleted.files_deleted)
        """
        return await self._driver.run(self._flows.delete_generation(id))

    async def wait_for_generation(
        self,
        id: str,
        *,
        timeout: float = 900.0,
        poll_interval: float | None = None,
        on_update: OnUpdate | None = None,
    ) -> Generation:
        """Wait until a generation succeeded, `timeout` seconds at most.

        It is read at once, after half a second, and then ever more rarely, to every five seconds; `poll_interval` is
        a fixed number of seconds instead. `on_update` is called with the generation whenever its status is another. A
        server that fails meanwhile is waited for, too.

        Raises:
            GenerationFailedError: it failed and was refunded; `code` tells why.
            GenerationCanceledError: it was canceled.
            GenerationTimeoutError: it is still running; wait for its `generation_id` again.
            NotFoundError: the account has no generation with this id.

        Example:
            accepted = await client.generate("sandbox/image", "a red fox")
            generation = await client.wait_for_generation(accepted.id, on_update=lambda now: print(now.status))
        """
        return await self._driver.run(
            self._flows.wait_for_generation(
                id, timeout=timeout, poll_interval=poll_interval, on_update=on_update
            )
        )

    async def download(
        self,
        generation: Generation | str,
        to: str | os.PathLike[str] = ".",
        *,
        overwrite: bool = False,
        name: str | None = None,
        max_bytes: int = FILE_MAX_BYTES,
    ) -> list[Path]:
        """Save the files of a generation, given itself or its id, and return where they are.

        `to` is a folder, which is made if need be, or a file, ending like `fox.png`, when there is only one. In a
        folder they are called `<model>-<end of the id>-<number>.<type>`, or after `name`. They appear there whole and
        all together, or not at all. Links that have expired are renewed once. The key is not sent to where links
        lead.

        Raises:
            GenerationError: the generation has no files: it did not succeed (yet), or they were removed.
            FileExistsError: a file is there already, and `overwrite` is false.
            DownloadError: a file is larger than `max_bytes`, or no picture and no video, or its host refuses it.

        Example:
            generation = await client.generate_and_wait("sandbox/image", "a red fox")
            print(await client.download(generation, "pictures"))
            await client.download(generation, "fox.png")
        """
        return await self._driver.run(
            self._files.run(generation, to, overwrite=overwrite, name=name, max_bytes=max_bytes)
        )

    async def generate_many(
        self,
        jobs: Iterable[Job],
        *,
        concurrency: int = 4,
        timeout: float = 900.0,
        on_progress: OnProgress | None = None,
    ) -> list[Outcome]:
        """Generate and wait for many jobs, in `concurrency` tasks at most; each has `timeout` seconds from its start.

        No job's error is raised: it is in the job's outcome, and outcomes are in the order of jobs. Jobs that the
        account has no place for yet (429) wait for one. `on_progress` is called after each with the
        number of those done, the number of all, and the outcome.

        Example:
            jobs = [Job("sandbox/image", f"a {animal}", idempotency_key=animal) for animal in ("fox", "owl")]
            for outcome in await client.generate_many(jobs):
                print(outcome.job.model, outcome.generation or outcome.error)
        """
        return await self._driver.run(
            self._flows.generate_many(jobs, concurrency=concurrency, timeout=timeout, on_progress=on_progress)
        )
