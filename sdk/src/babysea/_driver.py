"""The driver that blocks."""

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import Any, TypeVar

import httpx

from babysea._effects import Effect, Fetch, Flow, Gather, Response, Send, Sleep
from babysea._errors import BabySeaError
from babysea._wire import CHUNK_BYTES, Body, Wire, headers, translated

Result = TypeVar("Result")


class _StoppedError(Exception):
    """Another flow of the same gathering failed, or the program is being interrupted."""


class Driver:
    """Runs flows in the caller's thread, and those that are gathered in threads of their own."""

    def __init__(self, wire: Wire, http: httpx.Client | None, stop: Event | None = None) -> None:
        self._wire = wire
        self._is_ours = http is None
        self._http = httpx.Client() if http is None else http
        self._stop = stop or Event()

    def close(self) -> None:
        """Close what was opened here."""
        if self._is_ours:
            self._http.close()

    def run(self, flow: Flow[Result]) -> Result:
        """What the flow returns."""
        try:
            effect = next(flow)
            while True:
                try:
                    value = self._perform(effect)
                except BabySeaError as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(value)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            flow.close()  # where it was left by an error that is not for it

    def _perform(self, effect: Effect) -> Any:
        if self._stop.is_set():
            raise _StoppedError
        match effect:
            case Send():
                return self._send(effect)
            case Sleep(seconds):
                (self._wire.clock.sleep or self._stop.wait)(seconds)
            case Fetch():
                self._fetch(effect)
            case Gather():
                return self._gather(effect)
        return None

    def _send(self, effect: Send) -> Response:
        body = Body(self._wire.deadline(2 * effect.timeout))
        with translated():
            answer = self._open(self._wire.request(self._http, effect))
            try:
                for part in answer.iter_bytes():
                    body.add(part)
            finally:
                answer.close()
        return body.response(answer)

    def _fetch(self, effect: Fetch) -> None:
        deadline = self._wire.deadline(effect.deadline)
        with translated():
            answer = self._open(self._wire.file_request(effect))
            try:
                effect.sink.begin(answer.status_code, headers(answer))
                for chunk in answer.iter_raw(CHUNK_BYTES):
                    deadline.check()
                    effect.sink.write(chunk)
            finally:
                answer.close()

    def _open(self, request: httpx.Request) -> httpx.Response:
        return self._http.send(request, stream=True, auth=None, follow_redirects=False)

    def _gather(self, effect: Gather) -> list[Any]:
        stop = Event()
        driver = Driver(self._wire, self._http, stop)
        with ThreadPoolExecutor(effect.concurrency, thread_name_prefix="babysea") as pool:
            futures = [pool.submit(driver.run, flow) for flow in effect.flows]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()  # raises the first error, if there is one
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]
