"""Customers' input files for providers that take bytes: fetched, checked, sent, and each fault with its code."""

import base64
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from tests.conftest import MakeDeployment
from tests.emulators.bfl import BflEmulator
from tests.emulators.fal import FalEmulator
from tests.emulators.kit import Emulator, running
from tests.providers.live import FILES_HOST, PRIVATE_HOST, live
from tests.providers.profiles.kit import Case


def picture(width: int = 64, height: int = 64, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(file, format)
    return file.getvalue()


GOOD = picture()
BFL, FAL = Case("bfl/flux-dev"), Case("bfl/flux-schnell")

#: Found by us, before the provider is asked.
FAULTS: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "too many pixels": (lambda: picture(5000, 5000), "BSE2002"),
    "a format it does not read": (lambda: picture(format="GIF"), "BSE2004"),
    "no picture at all": (lambda: b"<html>sign in first</html>", "BSE2004"),
    "cut off": (lambda: picture(400, 400)[:500], "BSE2005"),
    "too many bytes": (lambda: GOOD + b"\0" * (20 * 1024 * 1024), "BSE2007"),
    "not there": (lambda: None, "BSE2009"),
}
#: Found by a provider that fetches the files itself.
TOLD = {"image-too-small": "BSE2003", "image-too-large": "BSE2002"}


def address(emulator: Emulator, name: str, host: str = FILES_HOST) -> str:
    return f"http://{host}:{urlsplit(emulator.origin).port}/_inputs/{name}"


def asking_for(case: Case, url: str) -> Case:
    inputs: dict[str, Any] = {**case.inputs, "generation_input_file": [url]}
    return Case(case.model, inputs)


async def test_a_good_file_reaches_the_provider_as_bytes(make_deployment: MakeDeployment) -> None:
    async with running(BflEmulator()) as bfl, live(make_deployment, [bfl]) as system:
        bfl.inputs["good.png"] = GOOD
        asked = asking_for(BFL, address(bfl, "good.png"))
        ended = await system.ended(await system.generate(asked, "a harbour", "bfl"))
        assert ended.status == "succeeded"
        [sent] = bfl.submits()
        assert base64.b64decode(sent.body["image_prompt"]) == GOOD


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_file_that_will_not_do_buys_nothing(make_deployment: MakeDeployment, fault: str) -> None:
    make, code = FAULTS[fault]
    content = make()
    async with running(BflEmulator()) as bfl, live(make_deployment, [bfl]) as system:
        if content is not None:
            bfl.inputs["file"] = content
        asked = asking_for(BFL, address(bfl, "file"))
        ended = await system.ended(await system.generate(asked, "a harbour", "bfl"))
        assert (ended.status, ended.failure, ended.code) == ("failed", "refused_input", code)
        assert ended.refunded == ended.reserved
        assert (bfl.purchases, bfl.submits()) == (0, [])


@pytest.mark.parametrize("word", TOLD)
async def test_what_a_provider_says_of_a_file_has_the_same_code(
    make_deployment: MakeDeployment, word: str
) -> None:
    async with running(FalEmulator()) as fal, live(make_deployment, [fal]) as system:
        ended = await system.ended(await system.generate(FAL, f"[fal:{word}] a harbour", "fal"))
        assert (ended.status, ended.failure, ended.code) == ("failed", "refused_input", TOLD[word])
        assert ended.refunded == ended.reserved


async def test_a_name_that_leads_to_a_private_address_is_not_followed(
    make_deployment: MakeDeployment,
) -> None:
    async with running(BflEmulator()) as bfl, live(make_deployment, [bfl]) as system:
        asked = asking_for(BFL, address(bfl, "good.png", PRIVATE_HOST))
        ended = await system.ended(await system.generate(asked, "a harbour", "bfl"))
        assert (ended.failure, ended.code) == ("refused_input", "BSE2009")
        [attempt] = ended.attempts
        assert PRIVATE_HOST not in attempt["error_message"]
        assert bfl.submits() == []
