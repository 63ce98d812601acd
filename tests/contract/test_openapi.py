"""The published document: valid OpenAPI 3.0.3, complete, deterministic, and true of the wire's structs."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, Meta, Struct, UnsetType
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate

from babysea_server.contract.examples import EXAMPLES
from babysea_server.contract.openapi import ModelBody, build_document
from babysea_server.contract.operations import OPERATIONS
from babysea_server.contract.schemas import struct_schemas
from babysea_server.errors import ERRORS
from babysea_server.settings import REGIONS

STATUSES = {"400", "401", "402", "403", "404", "409", "413", "422", "429", "500", "502", "503", "504"}
Documents = Mapping[str, dict[str, Any]]


def operations_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def resolved(schema: Any, document: Mapping[str, Any]) -> Any:
    """The schema with its references replaced, so that one validator can check it."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return resolved(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], document)
        return {key: resolved(value, document) for key, value in schema.items()}
    return [resolved(item, document) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("region", REGIONS)
def test_document_is_valid(documents: Documents, region: str) -> None:
    document = documents[region]
    validate(json.loads(json.dumps(document)))
    assert document["openapi"] == "3.0.3"
    assert document["servers"][0]["url"] == f"https://api.{region}.example.com"


def test_document_without_models_is_valid() -> None:
    validate(build_document("us", server_url="https://x.example", models=[]))


def test_document_names_every_operation_and_its_scope(documents: Documents) -> None:
    found = [
        (operation["operationId"], method, path, operation["x-babysea-scope"])
        for method, path, operation in operations_of(documents["us"])
    ]
    assert sorted(found) == sorted((row.id, row.method, row.path, row.scope) for row in OPERATIONS)


def test_every_operation_documents_every_class_of_error(documents: Documents) -> None:
    for _, _, operation in operations_of(documents["us"]):
        assert set(operation["responses"]) == STATUSES | {"200"}


def test_every_error_code_has_an_example_under_its_status(documents: Documents) -> None:
    document = documents["us"]
    envelope = resolved({"$ref": "#/components/schemas/ErrorEnvelope"}, document)
    for row in ERRORS.values():
        response = document["components"]["responses"][f"Error{row.status}"]
        example = response["content"]["application/json"]["examples"][row.code]["value"]
        assert (example["error"]["type"], example["error"]["retryable"]) == (row.type, row.retryable)
        OAS30Validator(envelope).validate(example)
    assert envelope["properties"]["error"]["properties"]["code"]["enum"] == list(ERRORS)


def test_examples_of_answers_are_what_their_schemas_and_structs_say(documents: Documents) -> None:
    document = documents["us"]
    by_id = {operation["operationId"]: operation for _, _, operation in operations_of(document)}
    assert set(EXAMPLES) == set(by_id)
    for row in OPERATIONS:
        content = by_id[row.id]["responses"]["200"]["content"]["application/json"]
        OAS30Validator(resolved(content["schema"], document)).validate(content["example"])
        msgspec.convert(EXAMPLES[row.id], row.data[0], strict=True)


def test_lists_have_their_totals_beside_the_data(documents: Documents) -> None:
    content = documents["us"]["paths"]["/v1/content/list"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["required"][-4:] == ["data", "total", "limit", "offset"]


def test_generate_takes_the_body_of_any_model(documents: Documents) -> None:
    document = documents["us"]
    operation = document["paths"]["/v1/generate/{media}/{lab}/{model}"]["post"]
    references = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    schemas = [document["components"]["schemas"][item["$ref"].rsplit("/", 1)[1]] for item in references]
    assert [(schema["x-babysea-model"], schema["x-babysea-media"]) for schema in schemas] == [
        ("bfl/flux-1.1-pro", "image"),
        ("sandbox/video", "video"),
    ]
    assert schemas[0]["example"] == {"generation_prompt": "A lighthouse"}


def test_models_whose_names_become_the_same_keep_apart() -> None:
    models = [ModelBody(name, "image", {"type": "object"}, {}) for name in ("a/b.c", "a/b_c")]
    schemas = build_document("us", server_url="https://x.example", models=models)["components"]["schemas"]
    assert [name for name in schemas if name.startswith("Generate_")] == [
        "Generate_a_b_c",
        "Generate_a_b_c_2",
    ]


def test_document_does_not_depend_on_the_order_of_models(documents: Documents) -> None:
    models = [ModelBody(name, "image", {"type": "object"}, {}) for name in ("b/x", "a/x")]
    first, second = (
        json.dumps(build_document("us", server_url="https://x.example", models=given))
        for given in (models, models[::-1])
    )
    assert first == second


def test_schema_dialect_is_the_old_one() -> None:
    class Part(Struct):
        """A part."""

        size: int | float

    class Whole(Struct):
        id: UUID | None
        word: Annotated[str, Meta(examples=["hi"])]
        part: Part | None
        choice: Literal["a", "b"] | None
        price: float | dict[str, float] | None
        above: Annotated[int, Meta(gt=0)]
        lone: Literal["x"] | UnsetType = UNSET

    class Empty(Struct):
        word: str = ""

    schemas = struct_schemas([Whole, Empty])
    assert list(schemas) == ["Empty", "Part", "Whole"]
    assert "required" not in schemas["Empty"]
    assert schemas["Part"]["properties"]["size"] == {"type": "number"}
    assert schemas["Whole"]["properties"] == {
        "id": {"type": "string", "format": "uuid", "nullable": True},
        "word": {"type": "string", "example": "hi"},
        "part": {"type": "object", "allOf": [{"$ref": "#/components/schemas/Part"}], "nullable": True},
        "choice": {"type": "string", "enum": ["a", "b", None], "nullable": True},
        "price": {
            "anyOf": [
                {"type": "number", "nullable": True},
                {"type": "object", "additionalProperties": {"type": "number"}},
            ]
        },
        "above": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
        "lone": {"type": "string", "enum": ["x"]},
    }
