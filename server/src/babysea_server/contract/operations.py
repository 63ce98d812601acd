"""The operations table: the only list of what `/v1` speaks.

The OpenAPI document is made from it, and from the document the firewall; usage templates, the CLI's
table and the SDK's paths come from it too. Fifteen rows times three regional hosts make the 45
operations. Source: the published contract, sections 1 and 4.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from babysea_server.accounts.wire import AccountData, BillingData, UsageData
from babysea_server.catalog.wire import EstimateData, LibraryModelsData, LibraryProvidersData
from babysea_server.errors import (
    ACCOUNT_NOT_FOUND,
    AUTH_RATE_LIMITED,
    AUTHENTICATION_FAILED,
    AUTHENTICATION_REQUIRED,
    CONCURRENCY_LIMIT_EXCEEDED,
    FIREWALL_REJECTED,
    GENERATION_IN_PROGRESS,
    GENERATION_NOT_CANCELABLE,
    GENERATION_NOT_FOUND,
    IDEMPOTENCY_IN_PROGRESS,
    IDEMPOTENCY_KEY_REUSED,
    INSUFFICIENT_CREDITS,
    INSUFFICIENT_PERMISSIONS,
    INTERNAL_ERROR,
    INVALID_IDEMPOTENCY_KEY,
    INVALID_INPUT,
    INVALID_PROVIDER_ORDER,
    IP_NOT_ALLOWED,
    MODEL_MEDIA_MISMATCH,
    MODEL_NOT_FOUND,
    NO_PROVIDER_AVAILABLE,
    PAYLOAD_TOO_LARGE,
    RATE_LIMIT_EXCEEDED,
    SERVICE_UNAVAILABLE,
    ErrorSpec,
)
from babysea_server.generations.wire import (
    CancelData,
    DeleteData,
    GenerationAccepted,
    GenerationCanceled,
    GenerationData,
    GenerationListData,
)
from babysea_server.keys.scopes import Scope
from babysea_server.keys.wire import StatusData
from babysea_server.limits.wire import HealthCacheData
from babysea_server.outputs.wire import HealthStorageData
from babysea_server.routing.wire import HealthModelsData, HealthProvidersData
from babysea_server.settings import REGIONS

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")

#: What any operation may answer, in the order in which it is looked at.
COMMON_ERRORS: tuple[ErrorSpec, ...] = (
    FIREWALL_REJECTED,
    AUTH_RATE_LIMITED,
    AUTHENTICATION_REQUIRED,
    AUTHENTICATION_FAILED,
    IP_NOT_ALLOWED,
    ACCOUNT_NOT_FOUND,
    INSUFFICIENT_PERMISSIONS,
    RATE_LIMIT_EXCEEDED,
    INTERNAL_ERROR,
    SERVICE_UNAVAILABLE,
)

Method = Literal["GET", "POST", "DELETE"]
BodyKind = Literal["none", "generation"]


class Parameter(msgspec.Struct, frozen=True):
    """One path or query parameter; `schema` is an OpenAPI 3.0.3 schema object.

    The examples of a path's parameters name something together; a query's stand only where one helps.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    example: str | int | None = None


class Operation(msgspec.Struct, frozen=True):
    """One row of the table.

    `path` is spelled for OpenAPI, where a parameter cannot hold a slash; `template` is the same path
    as people and usage tables read it. `data` holds the type of the answer's `data`, or its variants.
    """

    id: str
    method: Method
    path: str
    template: str
    scope: Scope
    tag: str
    summary: str
    message: str
    """The envelope's `message`."""
    data: tuple[type[Struct], ...]
    path_parameters: tuple[Parameter, ...] = ()
    query_parameters: tuple[Parameter, ...] = ()
    body: BodyKind = "none"
    paged: bool = False
    """Whether `total`, `limit` and `offset` stand beside `data`."""
    errors: tuple[ErrorSpec, ...] = ()
    """What it may answer beyond `COMMON_ERRORS`."""

    def endpoint(self, path: Mapping[str, str]) -> str:
        """The usage template of a call, e.g. `POST /v1/generate/image/{model_identifier}`.

        Parameters with a few literal values are filled in from `path`; identifiers never are, so the
        number of templates is fixed.
        """
        template = self.template
        for parameter in self.path_parameters:
            if "enum" in parameter.schema:
                template = template.replace(f"{{{parameter.name}}}", path[parameter.name])
        return f"{self.method} {template}"


class OperationRow(msgspec.Struct, frozen=True):
    """One of the 45 operations, as a table for people shows it."""

    host: str
    method: Method
    path: str
    scope: Scope


_UUID_PATTERN = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_NAME_SCHEMA = {"type": "string", "pattern": "^[a-z0-9._-]+$", "minLength": 1, "maxLength": 100}

_LAB = Parameter("lab", "The part of the model identifier before the slash.", _NAME_SCHEMA, "bfl")
_MODEL = Parameter("model", "The part of the model identifier after the slash.", _NAME_SCHEMA, "flux-schnell")
_MEDIA = Parameter("media", "What the model makes.", {"type": "string", "enum": ["image", "video"]}, "image")
_SUBJECT = Parameter(
    "subject", "Whose health is asked for.", {"type": "string", "enum": ["providers", "models"]}, "providers"
)
_GENERATION_ID = Parameter(
    "generation_id",
    "The generation's id; letters of either case.",
    {"type": "string", "format": "uuid", "pattern": _UUID_PATTERN},
    "0198f6b4-5d18-7f02-a6c9-83e1b4d7f265",
)
_DAYS = Parameter(
    "days",
    "How many days back, today included.",
    {"type": "integer", "minimum": 1, "maximum": 90, "default": 30},
    30,
)
_LIMIT = Parameter(
    "limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}, 50
)
_OFFSET = Parameter(
    "offset",
    "How many to pass over.",
    {"type": "integer", "minimum": 0, "maximum": 2_147_483_647, "default": 0},
)
# The estimate clamps its count and names an impossible length or resolution itself (BSE2001), so the
# schemas here bound only what can be read at all.
_COUNT = Parameter(
    "count",
    "How many generations; clamped to 1..100.",
    {"type": "integer", "format": "int32", "default": 1},
    4,
)
_DURATION = Parameter(
    "duration",
    "Seconds of video; the model's smallest when absent.",
    {"type": "integer", "format": "int32"},
)
_RESOLUTION = Parameter(
    "resolution",
    "One of the model's resolutions.",
    {"type": "string", "pattern": "^[A-Za-z0-9._:*-]+$", "minLength": 1, "maxLength": 32},
)
_AUDIO = Parameter("audio", "Whether the video has sound; false when absent.", {"type": "boolean"})

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="status",
        method="GET",
        path="/v1/status",
        template="/v1/status",
        scope="account:read",
        tag="Account",
        summary="Check the connection and the key",
        message="API connected successfully",
        data=(StatusData,),
    ),
    Operation(
        id="usage",
        method="GET",
        path="/v1/usage",
        template="/v1/usage",
        scope="account:read",
        tag="Account",
        summary="Read requests, generations and cost of the last days",
        message="Usage retrieved successfully",
        data=(UsageData,),
        query_parameters=(_DAYS,),
    ),
    Operation(
        id="account",
        method="GET",
        path="/v1/user/account",
        template="/v1/user/account",
        scope="account:read",
        tag="Account",
        summary="Read the account",
        message="Account retrieved successfully",
        data=(AccountData,),
    ),
    Operation(
        id="billing",
        method="GET",
        path="/v1/user/billing",
        template="/v1/user/billing",
        scope="account:read",
        tag="Account",
        summary="Read the plan and the balance",
        message="Billing retrieved successfully",
        data=(BillingData,),
    ),
    Operation(
        id="estimate",
        method="GET",
        path="/v1/estimate/{lab}/{model}",
        template="/v1/estimate/{model_identifier}",
        scope="library:read",
        tag="Library",
        summary="Estimate what generations would cost",
        message="Estimate calculated successfully",
        data=(EstimateData,),
        path_parameters=(_LAB, _MODEL),
        query_parameters=(_COUNT, _DURATION, _RESOLUTION, _AUDIO),
        errors=(INVALID_INPUT, MODEL_NOT_FOUND),
    ),
    Operation(
        id="generate",
        method="POST",
        path="/v1/generate/{media}/{lab}/{model}",
        template="/v1/generate/{media}/{model_identifier}",
        scope="generation:write",
        tag="Generation",
        summary="Start a generation",
        message="Generation initialized",
        data=(GenerationAccepted, GenerationCanceled),
        path_parameters=(_MEDIA, _LAB, _MODEL),
        body="generation",
        errors=(
            PAYLOAD_TOO_LARGE,
            MODEL_NOT_FOUND,
            MODEL_MEDIA_MISMATCH,
            INVALID_INPUT,
            INVALID_PROVIDER_ORDER,
            NO_PROVIDER_AVAILABLE,
            INVALID_IDEMPOTENCY_KEY,
            IDEMPOTENCY_KEY_REUSED,
            IDEMPOTENCY_IN_PROGRESS,
            CONCURRENCY_LIMIT_EXCEEDED,
            INSUFFICIENT_CREDITS,
        ),
    ),
    Operation(
        id="list_generations",
        method="GET",
        path="/v1/content/list",
        template="/v1/content/list",
        scope="generation:read",
        tag="Content",
        summary="List generations, newest first",
        message="Generations retrieved successfully",
        data=(GenerationListData,),
        query_parameters=(_LIMIT, _OFFSET),
        paged=True,
    ),
    Operation(
        id="get_generation",
        method="GET",
        path="/v1/content/{generation_id}",
        template="/v1/content/{generation_id}",
        scope="generation:read",
        tag="Content",
        summary="Read one generation",
        message="Generation retrieved successfully",
        data=(GenerationData,),
        path_parameters=(_GENERATION_ID,),
        errors=(GENERATION_NOT_FOUND,),
    ),
    Operation(
        id="delete_generation",
        method="DELETE",
        path="/v1/content/{generation_id}",
        template="/v1/content/{generation_id}",
        scope="generation:delete",
        tag="Content",
        summary="Delete a final generation and its files",
        message="Generation deleted successfully",
        data=(DeleteData,),
        path_parameters=(_GENERATION_ID,),
        errors=(GENERATION_NOT_FOUND, GENERATION_IN_PROGRESS),
    ),
    Operation(
        id="cancel_generation",
        method="POST",
        path="/v1/content/generation/cancel/{generation_id}",
        template="/v1/content/generation/cancel/{generation_id}",
        scope="generation:delete",
        tag="Content",
        summary="Cancel a generation in flight",
        message="Generation canceled successfully",
        data=(CancelData,),
        path_parameters=(_GENERATION_ID,),
        errors=(GENERATION_NOT_FOUND, GENERATION_NOT_CANCELABLE),
    ),
    Operation(
        id="health_inference",
        method="GET",
        path="/v1/health/inference/{subject}",
        template="/v1/health/inference/{subject}",
        scope="health:read",
        tag="Health",
        summary="Read the health of the providers, or of the models",
        message="Inference health retrieved successfully",
        data=(HealthProvidersData, HealthModelsData),
        path_parameters=(_SUBJECT,),
    ),
    Operation(
        id="health_storage",
        method="GET",
        path="/v1/health/storage",
        template="/v1/health/storage",
        scope="health:read",
        tag="Health",
        summary="Check the storage of outputs",
        message="Storage health retrieved successfully",
        data=(HealthStorageData,),
    ),
    Operation(
        id="health_cache",
        method="GET",
        path="/v1/health/cache",
        template="/v1/health/cache",
        scope="health:read",
        tag="Health",
        summary="Check the cache",
        message="Cache health retrieved successfully",
        data=(HealthCacheData,),
    ),
    Operation(
        id="library_providers",
        method="GET",
        path="/v1/library/providers",
        template="/v1/library/providers",
        scope="library:read",
        tag="Library",
        summary="List the inference providers",
        message="Providers retrieved successfully",
        data=(LibraryProvidersData,),
    ),
    Operation(
        id="library_models",
        method="GET",
        path="/v1/library/models",
        template="/v1/library/models",
        scope="library:read",
        tag="Library",
        summary="List the models with their prices and fields",
        message="Models retrieved successfully",
        data=(LibraryModelsData,),
    ),
)


def regional_hosts(domain: str, local_region: str | None = None) -> dict[str, str]:
    """The regional host names of `domain`, each with its region: `api.us.<domain>` and so on.

    With `local_region`, plain `localhost` and the loopback addresses lead there (development).
    """
    hosts: dict[str, str] = {f"api.{region}.{domain.lower()}": region for region in REGIONS}
    if local_region is not None:
        if local_region not in REGIONS:
            raise ValueError(f"{local_region!r} is not a region; the regions are {', '.join(REGIONS)}")
        hosts.update(dict.fromkeys(LOCAL_HOSTS, local_region))
    return hosts


def operations_table(domain: str) -> Sequence[OperationRow]:
    """All 45 operations under `domain`, host by host in the table's order."""
    return tuple(
        OperationRow(host, operation.method, operation.template, operation.scope)
        for host in regional_hosts(domain)
        for operation in OPERATIONS
    )
