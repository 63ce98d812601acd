"""Requests that Schemathesis makes up from the published document, valid and not, alone and one after another.

A path cannot choose a schema in OpenAPI, so the document leaves open which body belongs to which model. Here it
is told for two models: then every request that the document allows must be taken, and none that it forbids.
"""

import asyncio
import copy
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.contract.conformance.target import Issuer, Target
from tests.effort import effort

_MODELS = (("image", "sandbox/image"), ("video", "sandbox/video"))
_SEED = "20260428"
_EXAMPLES = str(effort(3))
_WITHIN_S = 100
#: Parameters of an estimate, and the input that each stands for.
_PRICED_BY = {
    "duration": "generation_duration",
    "resolution": "generation_resolution",
    "audio": "generation_generate_audio",
}
#: What the document says in words only: files are public, providers are the model's, each at most once.
_SPOKEN = {
    "generation_input_file": {
        "type": "array",
        "maxItems": 1,
        "items": {"type": "string", "enum": ["https://example.com/a.png"]},
    },
    "generation_provider_order": {"type": "string", "enum": ["fastest", "sandbox"]},
}


def told(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with paths for two models in place of those for any, each with its model's own schema."""
    result: dict[str, Any] = copy.deepcopy(dict(document))
    paths, schemas = result["paths"], result["components"]["schemas"]
    generate = paths.pop("/v1/generate/{media}/{lab}/{model}")["post"]
    estimate = paths.pop("/v1/estimate/{lab}/{model}")["get"]
    for media, identifier in _MODELS:
        (schema,) = [item for item in schemas.values() if item.get("x-babysea-model") == identifier]
        schema["properties"] |= _SPOKEN
        operation = _without_path(generate, f"generate_{media}")
        content = operation["requestBody"]["content"]["application/json"]
        content["schema"] = schema
        content.pop("examples")
        paths[f"/v1/generate/{media}/{identifier}"] = {"post": operation}
        paths[f"/v1/estimate/{identifier}"] = {"get": _estimate(estimate, media, schema["properties"])}
    result["components"]["schemas"] = {
        name: schema for name, schema in schemas.items() if "x-babysea-model" not in schema
    }
    return result


def _without_path(operation: Mapping[str, Any], name: str) -> dict[str, Any]:
    result: dict[str, Any] = copy.deepcopy(dict(operation))
    result["operationId"] = name
    result["parameters"] = [item for item in result["parameters"] if item["in"] != "path"]
    return result


def _estimate(estimate: Mapping[str, Any], media: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What can be priced is what the model can be asked for."""
    result = _without_path(estimate, f"estimate_{media}")
    parameters = {item["name"]: item for item in result["parameters"]}
    for name, field in _PRICED_BY.items():
        if field in inputs:
            parameters[name]["schema"] = inputs[field]
        else:
            del parameters[name]
    result["parameters"] = list(parameters.values())
    return result


async def test_no_generated_request_finds_what_the_document_does_not_say(
    target: Target, issuer: Issuer, tmp_path: Path
) -> None:
    caller = target.seen_with(await issuer.issue(credits="10000"))
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(told(caller.published.document)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(document)),
        *("--url", caller.base, "--header", f"Authorization: Bearer {caller.key}"),
        *("--checks", "all", "--seed", _SEED, "--max-examples", _EXAMPLES),
        *("--generation-database", "none", "--no-color"),
        cwd=tmp_path,  # it looks for settings beside itself and keeps its notes there
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
