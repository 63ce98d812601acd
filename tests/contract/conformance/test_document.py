"""The published document is the contract's table: 15 endpoints, their scopes, parameters and errors."""

from collections.abc import Iterator
from typing import Any

from openapi_spec_validator import validate
from tests.contract.conformance.contract import ENDPOINTS, ERRORS, PAIRS, QUERY
from tests.contract.conformance.target import Target


def operations(target: Target) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in target.published.document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_it_is_valid_openapi_3_0_3(target: Target) -> None:
    assert target.published.document["openapi"] == "3.0.3"
    validate(target.published.document)


def test_it_has_exactly_the_fifteen_endpoints_with_their_scopes(target: Target) -> None:
    found = [(method, path, operation["x-babysea-scope"]) for method, path, operation in operations(target)]
    assert len(found) == 15
    assert set(found) == ENDPOINTS


def test_its_paths_are_seventeen_concrete_pairs(target: Target) -> None:
    total = 0
    for _, _, operation in operations(target):
        count = 1
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                count *= len(parameter["schema"].get("enum", [None]))
        total += count
    assert total == len(PAIRS) == 17


def test_every_pair_is_one_of_its_operations(target: Target) -> None:
    for pair in PAIRS:
        assert target.published.operation_at(pair.method, pair.path) == pair.operation


def test_its_query_parameters_have_the_contracts_bounds(target: Target) -> None:
    for _, _, operation in operations(target):
        found = {
            parameter["name"]: parameter["schema"]
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "query"
        }
        expected = QUERY.get(operation["operationId"], {})
        assert found.keys() == expected.keys(), operation["operationId"]
        for name, (least, most, default) in expected.items():
            schema = found[name]
            if least is not None:
                assert schema["minimum"] == least
            if most is not None:
                assert schema["maximum"] == most
            assert schema.get("default") == default


def test_only_generate_takes_a_body_and_an_idempotency_key(target: Target) -> None:
    for _, _, operation in operations(target):
        headers = [
            parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "header"
        ]
        generates = operation["operationId"] == "generate"
        assert ("requestBody" in operation) is generates
        assert headers == (["Idempotency-Key"] if generates else [])


def test_its_errors_are_those_of_the_contract(target: Target) -> None:
    found = {}
    for name, response in target.published.document["components"]["responses"].items():
        for code, example in response["content"]["application/json"]["examples"].items():
            error = example["value"]["error"]
            assert error["code"] == code
            found[code] = (error["type"], int(name.removeprefix("Error")), error["retryable"])
    assert found == ERRORS


def test_a_key_authenticates_every_operation(target: Target) -> None:
    document = target.published.document
    (scheme,) = document["components"]["securitySchemes"].items()
    assert (scheme[1]["type"], scheme[1]["scheme"]) == ("http", "bearer")
    assert document["security"] == [{scheme[0]: []}]
    assert all("security" not in operation for _, _, operation in operations(target))
