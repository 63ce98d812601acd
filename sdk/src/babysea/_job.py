"""What is asked of a model, in the API's spelling."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from babysea._errors import BabySeaError, InvalidInputError
from babysea._operations import model_identifier
from babysea._types import Generation

_PREFIX = "generation_"
_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,255}")


class Job:
    """One request of `generate_many`; the arguments are those of `generate`.

    Give it an `idempotency_key` of your own, such as the number of an order, and a program that is started again
    buys nothing twice.

    Raises:
        InvalidInputError: a field was given twice, or its value has no JSON form.

    Example:
        job = Job("sandbox/image", "a red fox", ratio="16:9", idempotency_key="order-1")
        print(job.model, job.fields)
    """

    __slots__ = ("fields", "idempotency_key", "model")

    model: str
    """The model's identifier."""
    fields: Mapping[str, Any]
    """The body, under the API's names."""
    idempotency_key: str | None

    def __init__(
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
    ) -> None:
        self.model = model
        self.idempotency_key = idempotency_key
        named = {
            "prompt": prompt,
            "ratio": ratio,
            "output_format": output_format,
            "output_number": output_number,
            "input_file": input_file,
            "input_file_last_content": input_file_last_content,
            "duration": duration,
            "resolution": resolution,
            "generate_audio": generate_audio,
            "provider_order": provider_order,
        }
        body: dict[str, Any] = {}
        for name, value in (*named.items(), *fields.items()):
            spelled = name if name.startswith(_PREFIX) else f"{_PREFIX}{name}"
            if value is None:
                continue
            if spelled in body:
                raise InvalidInputError(f"{spelled} is given twice", details={"field": spelled})
            body[spelled] = _spelled(spelled, value)
        self.fields = body

    def __repr__(self) -> str:
        return f"Job({self.model!r}, {self.fields!r}, idempotency_key={self.idempotency_key!r})"

    def checked(self) -> bytes:
        """The body as JSON.

        Raises:
            InvalidInputError: what cannot be sent at all is wrong with the job.
        """
        model_identifier(self.model)
        if self.idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(self.idempotency_key):
            raise InvalidInputError("an idempotency key is 1 to 255 characters of A-Z a-z 0-9 _ . : -")
        try:
            return json.dumps(self.fields, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"a field has no JSON form: {error}") from None


def _spelled(name: str, value: Any) -> Any:
    if name == "generation_input_file":
        return [value] if isinstance(value, str) else list(value)
    if name == "generation_provider_order" and not isinstance(value, str):
        return ", ".join(value)
    return value


class Outcome:
    """What became of a job: its generation, or the error that the job ended with."""

    __slots__ = ("error", "generation", "job")

    job: Job
    generation: Generation | None
    error: BabySeaError | None

    def __init__(
        self, job: Job, generation: Generation | None = None, error: BabySeaError | None = None
    ) -> None:
        self.job = job
        self.generation = generation
        self.error = error

    def __repr__(self) -> str:
        return f"Outcome({self.job!r}, generation={self.generation!r}, error={self.error!r})"
