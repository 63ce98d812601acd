"""Cloudflare Workers AI: each call answers with one picture, in a JSON envelope or as its bytes.

Nothing is kept there: no id, no list, no address of a picture. So a lost answer cannot be looked for, and there is
nothing to poll or cancel.
"""

import io
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from babysea_server.catalog.types import Traits
from babysea_server.errors import FILE_LOAD_ERROR
from babysea_server.providers.answers import (
    Part,
    Sign,
    at,
    document,
    form_request,
    json_request,
    refused,
    text,
    told,
)
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Check,
    Failure,
    Finished,
    Job,
    Output,
    Provider,
    Refused,
    Request,
)
from babysea_server.providers.inputs import InputFile, InputRefusedError, InputRule
from babysea_server.providers.mapping import native
from babysea_server.providers.sizes import pixels

_AREA = 1024 * 1024
_SIDE_MIN, _SIDE_MAX = 256, 1920
#: Input pictures must be smaller than 512 x 512; larger ones are scaled down to this.
_INPUT_SIDE = 511
#: Beyond 2048 x 2048 scaling would take too long to do in passing.
_INPUT_RULE = InputRule(
    kinds=frozenset({"image"}),
    max_bytes=10 * 1024 * 1024,
    content_types=frozenset({"image/png", "image/jpeg", "image/webp"}),
    max_pixels=2048 * 2048,
)
#: These take forms, also for a prompt alone; every other model takes JSON.
_FORM_MODELS = "@cf/black-forest-labs/flux-2-"

_REFUSALS = (
    Sign(Failure.REFUSED_FUNDS, says=r"code=(3036|4006)\b|daily free allocation"),
    Sign(Failure.REFUSED_BUSY, says=r"code=3040\b|capacity temporarily exceeded"),
    # 3030 is any error of a model: only its words tell a refusal for content.
    Sign(Failure.REFUSED_POLICY, says=r"(?s)code=(3030|8007)\b.*(nsfw|flagged)"),
    Sign(Failure.REFUSED_INPUT, 400, r"unable to decode image", "BSE2005"),
    Sign(Failure.REFUSED_AUTH, says=r"code=10000\b"),
    Sign(Failure.REFUSED_INPUT, 404),
    Sign(Failure.REFUSED_INPUT, 405),
    Sign(Failure.FAILED, 408, r"code=3008\b"),
    Sign(Failure.TIMED_OUT, 408),
    # A gateway gave up waiting: the picture may have been made.
    Sign(Failure.OUTCOME_UNKNOWN, 504),
    Sign(Failure.OUTCOME_UNKNOWN, 524),
)


class Cloudflare(Provider):
    """The REST API of Workers AI. `account_id` names the account; `options` has none of its own."""

    name = "cloudflare"
    traits = Traits("synchronous")
    default_base = "https://api.cloudflare.com/client/v4"
    needs = ("api_key", "account_id")

    def input_files(self, job: Job) -> Mapping[str, InputRule]:
        """Pictures travel in the form."""
        return dict.fromkeys(_sources(job), _INPUT_RULE)

    def build_submit(self, job: Job) -> Request:
        """`POST /accounts/{account_id}/ai/run/{model}`, the model's id with its slashes.

        Scales input pictures down, which takes some tenths of a second for the largest.
        """
        asked = native(job)
        params = asked.params
        if "width,height" in params:
            ratio = params.pop("width,height")
            params["width"], params["height"] = pixels(ratio, area=_AREA, low=_SIDE_MIN, high=_SIDE_MAX)
        params.pop("input_image", None)
        url = f"{self._ai()}/run/{asked.model}"
        if not asked.model.startswith(_FORM_MODELS):
            return json_request("POST", url, self._headers(), params)
        texts = [Part(name, str(value)) for name, value in params.items()]
        files = [_part(f"input_image_{i}", job.files[source]) for i, source in enumerate(_sources(job))]
        return form_request(url, self._headers(), [*texts, *files])

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """200 is the picture, either in base64 in an envelope or as it is."""
        ray = answer.headers.get("cf-ray")
        if answer.status < 300 and answer.headers.get("content-type", "").lower().startswith("image/"):
            return Finished([Output(data=answer.body)], upstream_id=ray)
        body = document(answer)
        if answer.status >= 300 or body.get("success") is False:
            return refused(answer, _REFUSALS, _said(body))
        result = body.get("result")
        if not isinstance(result, dict):
            return Refused(Failure.OUTCOME_UNKNOWN, f"{told(answer)} without a result")
        image = text(result.get("image"))
        url = image if image.startswith("data:") else f"data:;base64,{image}"
        return Finished([Output(url=url)] if image else [], upstream_id=ray)

    def build_check(self) -> Request | None:
        """`GET /accounts/{account_id}/ai/models/search`, which needs the permission that calls need."""
        return Request("GET", f"{self._ai()}/models/search?per_page=1", self._headers())

    def read_check(self, answer: Answer) -> Check:
        """The envelope says whether it worked."""
        good = answer.status == 200 and document(answer).get("success") is True
        return Check(good, "the token reaches Workers AI of the account" if good else told(answer))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.api_key}"}

    def _ai(self) -> str:
        return f"{self.base}/accounts/{quote(self.settings.account_id or '', safe='')}/ai"


def _said(body: Mapping[str, Any]) -> str:
    errors = body.get("errors")
    found = [
        f"code={at(error, 'code')} {text(at(error, 'message'))}"
        for error in (errors if isinstance(errors, list) else [])
    ]
    return "; ".join(found)


def _sources(job: Job) -> list[str]:
    """The addresses of the input pictures, in order; none where the model takes none."""
    if "generation_input_file" not in job.offer.params:
        return []
    return list(job.inputs.get("generation_input_file", ()))


def _part(name: str, file: InputFile) -> Part:
    if max(file.width or 0, file.height or 0) <= _INPUT_SIDE:
        return Part(name, file.data, f"{name}.{file.extension}", file.content_type)
    return Part(name, _scaled(file), f"{name}.png", "image/png")


def _scaled(file: InputFile) -> bytes:
    """The picture within 511 x 511 pixels, upright, as PNG.

    Raises:
        InputRefusedError: it cannot be decoded.
    """
    from PIL import Image, ImageOps

    scaled = io.BytesIO()
    try:
        with Image.open(io.BytesIO(file.data), formats=["PNG", "JPEG", "WEBP"]) as image:
            image.thumbnail((_INPUT_SIDE, _INPUT_SIDE))
            upright = ImageOps.exif_transpose(image)
            plain = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
            plain.save(scaled, "PNG", compress_level=1)
    except Exception as error:  # decoders raise all sorts on malformed bytes, SyntaxError included
        raise InputRefusedError(FILE_LOAD_ERROR.code, "the file cannot be decoded") from error
    return scaled.getvalue()
