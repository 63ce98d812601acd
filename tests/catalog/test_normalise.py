"""From a body to an accepted request, or to an error that says what would be right."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.catalog.normalise import GenerationRequest, normalise
from babysea_server.catalog.schema import body_schema, example_body
from babysea_server.catalog.types import Model
from babysea_server.errors import ApiError
from babysea_server.kit.json import fingerprint

PROMPT = {"generation_prompt": "a lighthouse"}
IMAGE = "https://example.com/a.png"


def refused(model: Model, body: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        normalise(model, body)
    assert caught.value.details is not None
    assert caught.value.details["field"]
    return caught.value


def test_every_offered_model_accepts_and_prices_its_example(catalog: Catalog) -> None:
    for model in catalog.models.values():
        request = normalise(model, example_body(model))
        assert request.cost_micro >= 1, model.identifier
        assert request.eligible_providers, model.identifier
        assert set(request.eligible_providers) <= set(model.provider_ids)
        assert fingerprint(request.inputs), model.identifier


def test_every_value_of_every_list_is_accepted(catalog: Catalog) -> None:
    for model in catalog.models.values():
        for name, spec in model.fields.items():
            for value in spec.enum or ():
                body = {**example_body(model), name: value}
                assert normalise(model, body).inputs[name] == value, (model.identifier, name)


def test_every_schema_is_valid_and_free_of_what_openapi_30_lacks(catalog: Catalog) -> None:
    for model in catalog.all_models.values():
        schema = body_schema(model)
        jsonschema_rs.Draft202012Validator(schema)
        assert schema["additionalProperties"] is False
        assert schema["example"] == example_body(model)
        assert "generation_provider_order" in schema["properties"]
        for property in schema["properties"].values():
            assert isinstance(property["type"], str)
            assert property["description"]
            assert "const" not in property


def test_defaults_are_filled_in_and_order_is_the_models(catalog: Catalog) -> None:
    request = normalise(
        catalog.model("bfl/flux-schnell"), {"generation_output_number": 2.0, "generation_prompt": "x"}
    )
    assert list(request.inputs.items()) == [
        ("generation_prompt", "x"),
        ("generation_ratio", "1:1"),
        ("generation_output_format", "jpg"),
        ("generation_output_number", 2),
    ]
    assert type(request.inputs["generation_output_number"]) is int
    assert request.provider_order is None


def test_resolution_defaults_to_the_first_and_sound_to_none(catalog: Catalog) -> None:
    request = normalise(catalog.model("google/veo-3"), {**PROMPT, "generation_duration": 4})
    assert request.inputs["generation_resolution"] == "720p"
    assert request.inputs["generation_generate_audio"] is False


@pytest.mark.parametrize("body", [None, [], "text", 1, True])
def test_body_that_is_no_object_400(catalog: Catalog, body: object) -> None:
    error = refused(catalog.model("bfl/flux-schnell"), body)
    assert error.spec.code == "BSE2001"
    assert error.details == {"field": "body"}


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"generation_ration": "1:1"}, "generation_ration", "did you mean generation_ratio?"),
        ({"zzz": 1}, "zzz", "it takes generation_prompt, "),
        ({"generation_prompt": 5}, "generation_prompt", "a text of at most 5000 characters"),
        ({"generation_prompt": ""}, "generation_prompt", "blank"),
        ({"generation_prompt": " \n\t\u3000"}, "generation_prompt", "blank"),
        ({"generation_prompt": "x" * 5001}, "generation_prompt", "at most 5000"),
        ({"generation_prompt": None}, "generation_prompt", "a text"),
        ({"generation_ratio": "1:2"}, "generation_ratio", "one of 1:1, 3:4, 4:3, 9:16, 16:9"),
        ({"generation_output_format": "jpeg"}, "generation_output_format", "one of jpg, png, webp"),
        ({"generation_output_number": 0}, "generation_output_number", "a whole number from 1 to 4"),
        ({"generation_output_number": 5}, "generation_output_number", "a whole number from 1 to 4"),
        ({"generation_output_number": 1.5}, "generation_output_number", "a whole number"),
        ({"generation_output_number": True}, "generation_output_number", "a whole number"),
        ({"generation_output_number": "1"}, "generation_output_number", "a whole number"),
        ({"generation_seed": 10**18}, "generation_seed", "a whole number"),
        ({"generation_provider_order": 1}, "generation_provider_order", "'fastest'"),
    ],
)
def test_wrong_field_400_says_what_would_be_right(
    catalog: Catalog, change: dict[str, Any], field: str, told: str
) -> None:
    error = refused(catalog.model("bfl/flux-schnell"), {**PROMPT, **change})
    assert error.spec.code == "BSE2001"
    assert error.details is not None
    assert error.details["field"] == field
    assert told in error.message


def test_suggestions_are_machine_readable_too(catalog: Catalog) -> None:
    error = refused(catalog.model("bfl/flux-schnell"), {**PROMPT, "generation_output_format": "jpeg"})
    assert error.details == {
        "field": "generation_output_format", "allowed": ["jpg", "png", "webp"], "suggestion": "jpg",
    }  # fmt: skip


def test_missing_field_400(catalog: Catalog) -> None:
    assert "generation_prompt is required" in refused(catalog.model("bfl/flux-schnell"), {}).message
    error = refused(catalog.model("google/veo-3"), PROMPT)
    assert error.details == {"field": "generation_duration", "allowed": [4, 6, 8]}


def test_prompt_of_the_longest_length_passes(catalog: Catalog) -> None:
    normalise(catalog.model("bfl/flux-schnell"), {"generation_prompt": "é" * 5000})


def test_impossible_combination_400_says_what_goes_with_it(catalog: Catalog) -> None:
    model = catalog.model("minimax/hailuo-02")
    body = {**PROMPT, "generation_duration": 10, "generation_resolution": "1080p"}
    error = refused(model, body)
    assert error.details == {"field": "generation_duration", "allowed": [6]}
    assert "generation_duration can be 6" in error.message
    normalise(model, {**body, "generation_duration": 6})
    normalise(model, {**body, "generation_resolution": "768p"})


def test_neither_prompt_nor_file_400(catalog: Catalog) -> None:
    model = catalog.model("bfl/flux-1.1-pro")
    assert refused(model, {}).message == "Give generation_prompt or generation_input_file."
    normalise(model, {"generation_input_file": [IMAGE]})


def test_redundant_field_is_dropped_and_a_contradicting_one_400(catalog: Catalog) -> None:
    model = catalog.model("kling/v1.6-pro")
    body = {**PROMPT, "generation_duration": 5}
    plain = normalise(model, body)
    for name, same, other in [
        ("generation_output_format", "mp4", "gif"),
        ("generation_output_number", 1, 2),
        ("generation_output_number", 1.0, True),
        ("generation_generate_audio", False, True),
    ]:
        assert normalise(model, {**body, name: same}).inputs == plain.inputs
        error = refused(model, {**body, name: other})
        assert error.details is not None
        assert error.details["field"] == name
    assert "no choice" in refused(model, {**body, "generation_resolution": "720p"}).message


def test_published_example_with_fields_the_model_lacks_passes(catalog: Catalog) -> None:
    body = {
        **PROMPT, "generation_duration": 5, "generation_resolution": "720p", "generation_generate_audio": True,
    }  # fmt: skip
    assert "generation_resolution" not in normalise(catalog.model("kling/v1.5-pro"), body).inputs


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a", "ftp://example.com/a", "https://u:p@example.com/", "x"]
)
def test_url_that_is_not_public_400_names_its_place(catalog: Catalog, url: str) -> None:
    error = refused(catalog.model("sandbox/image"), {**PROMPT, "generation_input_file": [IMAGE, url]})
    assert error.message.startswith("generation_input_file[1] must be a public http(s) URL: ")
    veo = {**PROMPT, "generation_duration": 8, "generation_input_file_last_content": url}
    assert refused(catalog.model("google/veo-3.1"), veo).message.startswith(
        "generation_input_file_last_content must be a public"
    )


def test_files_are_counted(catalog: Catalog) -> None:
    model = catalog.model("sandbox/image")
    normalise(model, {**PROMPT, "generation_input_file": [IMAGE] * 4})
    error = refused(model, {**PROMPT, "generation_input_file": [IMAGE] * 5})
    assert "at most 4" in error.message
    assert "generation_input_file" not in normalise(model, {**PROMPT, "generation_input_file": []}).inputs
    edit = catalog.model("runway/gen-4-image-turbo")
    assert "from 1 to 3" in refused(edit, {**PROMPT, "generation_input_file": []}).message


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("fastest", None),
        ("replicate, fal, cloudflare", ("replicate", "fal", "cloudflare")),
        ("cloudflare,replicate", ("cloudflare", "replicate")),
        ("  fal  ", ("fal",)),
    ],
)
def test_provider_order(catalog: Catalog, text: str, order: tuple[str, ...] | None) -> None:
    body = {**PROMPT, "generation_provider_order": text}
    request = normalise(catalog.model("bfl/flux-schnell"), body)
    assert request.provider_order == order
    assert request.eligible_providers == (order or ("replicate", "fal", "cloudflare"))
    assert "generation_provider_order" not in request.inputs


@pytest.mark.parametrize(
    "text", ["", ",", "fal, fal", "acme", "fal;replicate", "fastest, fal", "fal,", "FAL"]
)
def test_wrong_provider_order_400(catalog: Catalog, text: str) -> None:
    error = refused(catalog.model("bfl/flux-schnell"), {**PROMPT, "generation_provider_order": text})
    assert error.spec.code == "BSE2013"
    assert error.details is not None
    assert error.details["allowed"] == ["fastest", "replicate", "fal", "cloudflare"]


def test_partial_provider_is_skipped_outside_its_limits(catalog: Catalog) -> None:
    model = catalog.model("bfl/flux-schnell")
    webp = {**PROMPT, "generation_output_format": "webp"}
    assert normalise(model, webp).eligible_providers == ("replicate",)
    two = {**PROMPT, "generation_output_number": 2, "generation_provider_order": "cloudflare, fal"}
    request = normalise(model, two)
    assert request.provider_order == ("cloudflare", "fal")
    assert request.eligible_providers == ("fal",)


def test_order_without_an_able_provider_400(catalog: Catalog) -> None:
    body = {**PROMPT, "generation_output_format": "webp", "generation_provider_order": "fal"}
    error = refused(catalog.model("bfl/flux-schnell"), body)
    assert error.spec.code == "BSE2013"
    assert error.details == {"field": "generation_provider_order", "allowed": ["replicate"]}


def test_provider_that_only_animates_images_is_skipped_for_text(catalog: Catalog) -> None:
    model = catalog.model("kling/o1")
    body = {**PROMPT, "generation_duration": 5}
    assert normalise(model, body).eligible_providers == ("replicate",)
    with_image = {**body, "generation_input_file": [IMAGE]}
    assert normalise(model, with_image).eligible_providers == ("replicate", "fal")
    # It cannot be told a ratio, so it only serves the default one.
    assert normalise(model, {**with_image, "generation_ratio": "1:1"}).eligible_providers == ("replicate",)


_CATALOG = load_catalog()
_MODELS = st.sampled_from(sorted(_CATALOG.models))
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_JSON = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


def refusal_or_request(model: Model, body: object) -> ApiError | GenerationRequest:
    try:
        return normalise(model, body)
    except ApiError as error:
        return error


def judged(model: Model, body: object) -> None:
    answer = refusal_or_request(model, body)
    if isinstance(answer, ApiError):
        assert answer.spec.code in ("BSE2001", "BSE2013")
        assert answer.details is not None
        assert isinstance(answer.details["field"], str)
        assert answer.message.endswith((".", "?"))
    else:
        assert answer.cost_micro >= 1
        assert normalise(model, answer.inputs).inputs == answer.inputs


@given(_MODELS, _JSON)
def test_any_json_body_is_accepted_or_refused(identifier: str, body: object) -> None:
    judged(_CATALOG.models[identifier], body)


@given(_MODELS, st.data())
def test_any_values_in_known_fields_are_accepted_or_refused(identifier: str, data: st.DataObject) -> None:
    model = _CATALOG.models[identifier]
    names = st.sampled_from(
        [*model.fields, "generation_provider_order", "generation_ratio", "generation_fps"]
    )
    values = _JSON | st.sampled_from(
        [IMAGE, [IMAGE], "fastest", *(value for spec in model.fields.values() for value in spec.enum or ())]
    )
    changes = data.draw(st.dictionaries(names, values, max_size=4))
    judged(model, {**example_body(model), **changes})
