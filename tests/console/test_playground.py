"""Playground: its form becomes the request that the API takes, priced, and spelled as it can be pasted elsewhere."""

import ast
import json
import re
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, console_of, forms_of
from tests.support import Deployment

from babysea.cli import fields as cli_fields
from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.normalise import normalise
from babysea_server.catalog.schema import example_body
from babysea_server.console.forms import Form
from babysea_server.console.model_view import inputs_of
from babysea_server.console.pages.playground import body_of
from babysea_server.console.snippets import KEY, snippets
from babysea_server.kit import money

ORIGIN = "https://api.us.example.com"
_BODIES = st.fixed_dictionaries(
    {
        "generation_prompt": st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
        )
    },
    optional={
        "generation_ratio": st.sampled_from(["1:1", "16:9"]),
        "generation_seed": st.integers(0, 2**31 - 1),
        "generation_input_file": st.lists(
            st.just('https://example.com/it\'s "a" $HOME.png'), min_size=1, max_size=2
        ),
        "generation_negative_prompt": st.sampled_from(["7", "true", "[1]", "-v", "it's", '"x"']),
        "generation_guidance_scale": st.floats(0, 20),
        "generation_watermark": st.booleans(),
        "generation_provider_order": st.just("fal, replicate"),
    },
)


@pytest.fixture
def catalog(console: Deployment) -> Catalog:
    return console_of(console).regions["us"].catalog


async def _preview(client: ConsoleClient, model: str, **fields: Any) -> dict[str, Any]:
    """What the page is told while its form is filled in."""
    path = f"/playground?model={model}"
    response = await client.submit(path, fields, action="/playground/preview")
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


# ------------------------------------------------------------------------------- the page


async def test_the_page_begins_with_a_model_that_can_run(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    for media in ("image", "video"):
        html = await client.page(f"/playground?type={media}")
        assert f'name="model" value="sandbox/{media}"' in html
    named = await client.page("/playground?model=bfl/flux-schnell&type=video")
    assert 'name="model" value="bfl/flux-schnell"' in named


async def test_the_key_has_no_name_so_that_no_form_sends_it(console_client: ConsoleClientOf) -> None:
    html = await (await console_client("member")).page("/playground")
    (field,) = re.findall(r'<input[^>]*id="f-key"[^>]*>', html)
    assert " name=" not in field
    assert 'type="password"' in field
    assert 'autocomplete="off"' in field


async def test_the_form_of_every_model_can_be_asked_for(
    catalog: Catalog, console_client: ConsoleClientOf
) -> None:
    client = await console_client("member")
    for identifier, model in catalog.models.items():
        fragment = await client.page(f"/playground/fields?model={identifier}")
        names = {name for form in forms_of(f"<form>{fragment}</form>") for name, _ in form.fields}
        boxes = {each.spec.name for each in inputs_of(model) if each.widget == "check"}
        assert names | boxes == {*model.fields, "model", "generation_provider_order"} | boxes
    assert (await client.get("/playground/fields?model=no/such")).status_code == 404


async def test_a_form_that_is_left_alone_asks_for_what_the_model_does_anyway(
    catalog: Catalog, console_client: ConsoleClientOf
) -> None:
    client = await console_client("member")
    for identifier in ("sandbox/image", "bfl/flux-schnell", "gpt/image-1", "wan/2.1-imageedit"):
        if identifier in catalog.models:
            told = await _preview(client, identifier)
            assert json.loads(told["body"]) == {}
            assert told["field"] is None
    video = await _preview(client, "sandbox/video")
    assert json.loads(video["body"]) == {"generation_duration": 1}


# ------------------------------------------------------------------------------- preview


async def test_the_estimate_is_the_price_that_is_reserved(
    catalog: Catalog, console_client: ConsoleClientOf
) -> None:
    client = await console_client("member", credits="0.5")
    told = await _preview(
        client,
        "sandbox/video",
        generation_prompt="waves",
        generation_duration="10",
        generation_resolution="1080p",
    )
    request = normalise(catalog.model("sandbox/video"), json.loads(told["body"]))
    assert told["price"] == f"${money.text(request.cost_micro)}" == "$0.04"
    assert told["text"] == "Estimate: $0.04. The balance covers 12 of these."
    assert told["path"] == "/v1/generate/video/sandbox/video"


async def test_a_price_beyond_the_balance_says_so(console_client: ConsoleClientOf) -> None:
    client = await console_client("member", credits="0.001")
    told = await _preview(client, "sandbox/video", generation_duration="15", generation_resolution="1080p")
    assert told["text"] == "Estimate: $0.06. The balance of $0.001 does not cover it."


@pytest.mark.parametrize(
    ("model", "fields", "at_fault"),
    [
        ("sandbox/image", {"generation_ratio": "17:9"}, "generation_ratio"),
        ("sandbox/image", {"generation_output_number": "5"}, "generation_output_number"),
        ("sandbox/image", {"generation_output_number": "many"}, "generation_output_number"),
        ("sandbox/image", {"generation_seed": "1e400"}, "generation_seed"),
        ("sandbox/image", {"generation_input_file": "file:///etc/passwd"}, "generation_input_file"),
        ("sandbox/image", {"generation_provider_order": "nobody"}, "generation_provider_order"),
    ],
)
async def test_a_wrong_field_is_named_while_it_is_filled_in(
    console_client: ConsoleClientOf, model: str, fields: dict[str, str], at_fault: str
) -> None:
    told = await _preview(await console_client("member"), model, **fields)
    assert told["field"] == at_fault
    assert at_fault in told["message"]
    assert told["price"] == ""
    assert set(json.loads(told["body"])) == {at_fault}


async def test_a_preview_needs_a_form_of_this_session(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    fields = {"model": "sandbox/image", "csrf": "forged"}
    assert (await client.post("/playground/preview", fields)).status_code == 403
    assert (await client.post("/playground/preview", {"model": "no/such"})).status_code == 404


async def test_the_api_elsewhere_is_named_and_allowed(
    console_client: ConsoleClientOf, make_deployment: MakeDeployment
) -> None:
    deployment = await make_deployment(worker=False, public_url=ORIGIN)
    client = await console_client("member", deployment=deployment)
    response = await client.get("/playground")
    policy = response.headers["content-security-policy"]
    for part in ("connect-src", "img-src", "media-src"):
        assert re.search(rf"{part} [^;]*{re.escape(ORIGIN)}", policy)
    assert json.dumps(ORIGIN) in response.text
    told = await _preview(client, "sandbox/image", generation_prompt="a fox")
    assert f"{ORIGIN}/v1/generate/image/sandbox/image" in told["code"]["curl"]


def test_each_type_of_field_becomes_its_json(catalog: Catalog) -> None:
    model = catalog.model("sandbox/image")
    form = Form(
        [
            ("generation_prompt", "two\r\nlines"),
            ("generation_ratio", "16:9"),
            ("generation_output_number", "2"),
            ("generation_output_format", "png"),
            ("generation_input_file", " https://example.com/a.png \r\n\r\nhttps://example.com/b.png\r\n"),
            ("generation_seed", ""),
            ("generation_provider_order", "sandbox"),
            ("generation_unknown", "dropped"),
        ]
    )
    assert body_of(model, form) == {
        "generation_prompt": "two\nlines",
        "generation_ratio": "16:9",
        "generation_output_number": 2,
        "generation_input_file": ["https://example.com/a.png", "https://example.com/b.png"],
        "generation_provider_order": "sandbox",
    }
    video = catalog.model("sandbox/video")
    assert body_of(video, Form([("generation_generate_audio", "true")])) == {
        "generation_generate_audio": True
    }
    assert body_of(video, Form()) == {}


# ------------------------------------------------------------------------------- the same call elsewhere


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_BODIES)
def test_every_spelling_is_the_same_request(catalog: Catalog, body: dict[str, Any]) -> None:
    spelled = snippets(catalog.model("sandbox/image"), body, ORIGIN)
    assert json.loads(spelled.json) == body
    assert _of_curl(spelled.curl) == body
    assert _of_python(spelled.python) == body
    assert _of_cli(spelled.cli) == body


def test_the_example_of_every_model_can_be_pasted(catalog: Catalog) -> None:
    for model in catalog.models.values():
        body = example_body(model)
        spelled = snippets(model, body, ORIGIN)
        assert _of_curl(spelled.curl) == _of_python(spelled.python) == _of_cli(spelled.cli) == body


def _argv(command: str, text: str) -> list[str]:
    """What a shell hands to the command; it can call nothing else."""
    script = f"{command}() {{ printf '%s\\0' \"$@\"; }}\n{text}"
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, check=True, env={"PATH": "/nowhere"}
    )
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


def _of_curl(text: str) -> Any:
    words = _argv("curl", text)
    assert words[:2] == ["-X", "POST"]
    assert words[2].startswith(f"{ORIGIN}/v1/generate/")
    assert f"Authorization: Bearer {KEY}" in words
    return json.loads(words[words.index("-d") + 1])


def _of_python(text: str) -> Any:
    (call,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "client.generate_and_wait"
    )
    body = {f"generation_{each.arg}": ast.literal_eval(each.value) for each in call.keywords}
    if len(call.args) > 1:
        body["generation_prompt"] = ast.literal_eval(call.args[1])
    return body


def _of_cli(text: str) -> Any:
    assert text.startswith(f"BABYSEA_API_KEY={KEY} babysea ")
    words = _argv("babysea", text)
    assert words[-2:] == ["--base-url", ORIGIN]
    rest, body, pairs = words[2:-2], {}, []
    options = {
        "--ratio": "ratio",
        "--format": "output_format",
        "--number": "output_number",
        "--resolution": "resolution",
        "--duration": "duration",
        "--provider-order": "provider_order",
    }
    while rest:
        word = rest.pop(0)
        if word == "-i":
            pairs.append(rest.pop(0))
        elif word in options:
            name = f"generation_{options[word]}"
            body[name] = cli_fields.value_of(name, rest.pop(0))
        else:
            body["generation_prompt"] = word
    return body | cli_fields.given(pairs)
