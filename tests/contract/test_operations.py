"""The table: 45 operations, stable ids, and the templates that usage counts by."""

from collections import Counter

import pytest

from babysea_server.contract.operations import OPERATIONS, operations_table, regional_hosts
from babysea_server.settings import REGIONS

PUBLISHED = """\
GET /v1/status account:read
GET /v1/usage account:read
GET /v1/user/account account:read
GET /v1/user/billing account:read
GET /v1/estimate/{model_identifier} library:read
POST /v1/generate/{media}/{model_identifier} generation:write
GET /v1/content/list generation:read
GET /v1/content/{generation_id} generation:read
DELETE /v1/content/{generation_id} generation:delete
POST /v1/content/generation/cancel/{generation_id} generation:delete
GET /v1/health/inference/{subject} health:read
GET /v1/health/storage health:read
GET /v1/health/cache health:read
GET /v1/library/providers library:read
GET /v1/library/models library:read"""


def test_table_holds_the_published_operations_in_order() -> None:
    rows = [f"{operation.method} {operation.template} {operation.scope}" for operation in OPERATIONS]
    assert rows == PUBLISHED.splitlines()


def test_operation_ids_are_stable() -> None:
    assert [operation.id for operation in OPERATIONS] == [
        *("status", "usage", "account", "billing", "estimate", "generate", "list_generations"),
        *("get_generation", "delete_generation", "cancel_generation", "health_inference"),
        *("health_storage", "health_cache", "library_providers", "library_models"),
    ]


def test_forty_five_operations_on_three_hosts() -> None:
    table = operations_table("example.com")
    assert len(table) == len(set(table)) == 45
    assert Counter(row.host for row in table) == {f"api.{region}.example.com": 15 for region in REGIONS}


def test_path_and_template_have_the_same_parameters() -> None:
    for operation in OPERATIONS:
        names = [parameter.name for parameter in operation.path_parameters]
        assert [part[1:-1] for part in operation.path.split("/") if part.startswith("{")] == names
        assert operation.path.replace("{lab}/{model}", "{model_identifier}") == operation.template


@pytest.mark.parametrize(
    ("operation_id", "path", "endpoint"),
    [
        (
            "generate",
            {"media": "image", "lab": "bfl", "model": "flux"},
            "POST /v1/generate/image/{model_identifier}",
        ),
        ("estimate", {"lab": "bfl", "model": "flux"}, "GET /v1/estimate/{model_identifier}"),
        ("get_generation", {"generation_id": "x"}, "GET /v1/content/{generation_id}"),
        ("health_inference", {"subject": "models"}, "GET /v1/health/inference/models"),
        ("status", {}, "GET /v1/status"),
    ],
)
def test_endpoint_fills_in_literals_only(operation_id: str, path: dict[str, str], endpoint: str) -> None:
    (operation,) = (operation for operation in OPERATIONS if operation.id == operation_id)
    assert operation.endpoint(path) == endpoint


def test_local_names_lead_to_the_local_region() -> None:
    hosts = regional_hosts("Example.com", "jp")
    assert hosts["localhost"] == hosts["127.0.0.1"] == "jp"
    assert hosts["api.eu.example.com"] == "eu"
    assert "localhost" not in regional_hosts("example.com")


def test_a_region_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'mars' is not a region"):
        regional_hosts("example.com", "mars")
