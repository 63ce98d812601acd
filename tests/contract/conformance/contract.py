"""The contract in this suite's own words: operations, scopes and the members of every answer.

Written by hand from the contract and never from the server's tables, so that the two can disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.contract.conformance.shapes import (
    Shape,
    count,
    either,
    flag,
    mapping,
    maybe,
    moment,
    money,
    number,
    one_of,
    share,
    text,
    uuid,
)

MISSING = "00000000-0000-4000-8000-000000000000"

SCOPES = (
    "generation:write",
    "generation:read",
    "generation:delete",
    "account:read",
    "health:read",
    "library:read",
)
PRESETS: Mapping[str, frozenset[str]] = {
    "full_access": frozenset(SCOPES),
    "generate_only": frozenset({"generation:write", "generation:read", "library:read"}),
    "read_only": frozenset({"generation:read", "account:read", "health:read", "library:read"}),
    "monitor_only": frozenset({"health:read", "library:read"}),
}


@dataclass(frozen=True)
class Concrete:
    """One of the 17 pairs of method and path, with a request that is admitted and changes nothing.

    `missing`: the code that the request is answered with once it is admitted, or None for success.
    """

    operation: str
    method: str
    path: str
    scope: str
    missing: str | None = None
    body: Any = None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


PAIRS = (
    Concrete("status", "GET", "/v1/status", "account:read"),
    Concrete("usage", "GET", "/v1/usage", "account:read"),
    Concrete("account", "GET", "/v1/user/account", "account:read"),
    Concrete("billing", "GET", "/v1/user/billing", "account:read"),
    Concrete("estimate", "GET", "/v1/estimate/no/model", "library:read", "BSE2011"),
    Concrete("generate", "POST", "/v1/generate/image/no/model", "generation:write", "BSE2011", {}),
    Concrete("generate", "POST", "/v1/generate/video/no/model", "generation:write", "BSE2011", {}),
    Concrete("list_generations", "GET", "/v1/content/list", "generation:read"),
    Concrete("get_generation", "GET", f"/v1/content/{MISSING}", "generation:read", "BSE3001"),
    Concrete("delete_generation", "DELETE", f"/v1/content/{MISSING}", "generation:delete", "BSE3001"),
    Concrete(
        "cancel_generation",
        "POST",
        f"/v1/content/generation/cancel/{MISSING}",
        "generation:delete",
        "BSE3001",
    ),
    Concrete("health_inference", "GET", "/v1/health/inference/providers", "health:read"),
    Concrete("health_inference", "GET", "/v1/health/inference/models", "health:read"),
    Concrete("health_storage", "GET", "/v1/health/storage", "health:read"),
    Concrete("health_cache", "GET", "/v1/health/cache", "health:read"),
    Concrete("library_providers", "GET", "/v1/library/providers", "library:read"),
    Concrete("library_models", "GET", "/v1/library/models", "library:read"),
)

#: Templates of the document: method, path, scope.
ENDPOINTS = {
    ("GET", "/v1/status", "account:read"),
    ("GET", "/v1/usage", "account:read"),
    ("GET", "/v1/user/account", "account:read"),
    ("GET", "/v1/user/billing", "account:read"),
    ("GET", "/v1/estimate/{lab}/{model}", "library:read"),
    ("POST", "/v1/generate/{media}/{lab}/{model}", "generation:write"),
    ("GET", "/v1/content/list", "generation:read"),
    ("GET", "/v1/content/{generation_id}", "generation:read"),
    ("DELETE", "/v1/content/{generation_id}", "generation:delete"),
    ("POST", "/v1/content/generation/cancel/{generation_id}", "generation:delete"),
    ("GET", "/v1/health/inference/{subject}", "health:read"),
    ("GET", "/v1/health/storage", "health:read"),
    ("GET", "/v1/health/cache", "health:read"),
    ("GET", "/v1/library/providers", "library:read"),
    ("GET", "/v1/library/models", "library:read"),
}

#: Query parameters by operation: name to (least, most, default); None where the contract sets no bound.
QUERY: Mapping[str, Mapping[str, tuple[int | None, int | None, Any]]] = {
    "usage": {"days": (1, 90, 30)},
    "list_generations": {"limit": (1, 100, 50), "offset": (0, None, 0)},
    "estimate": {
        "count": (None, None, 1),
        "duration": (None, None, None),
        "resolution": (None, None, None),
        "audio": (None, None, None),
    },
}

#: code: (type, HTTP status, retryable)
ERRORS: Mapping[str, tuple[str, int, bool]] = {
    "BSE1001": ("authentication_required", 401, False),
    "BSE1002": ("authentication_failed", 401, False),
    "BSE1003": ("insufficient_permissions", 403, False),
    "BSE1004": ("insufficient_credits", 402, False),
    "BSE1005": ("rate_limit_exceeded", 429, True),
    "BSE1006": ("auth_rate_limited", 429, True),
    "BSE1007": ("ip_not_allowed", 403, False),
    "BSE1008": ("account_not_found", 404, False),
    "BSE1009": ("concurrency_limit_exceeded", 429, True),
    "BSE1010": ("firewall_rejected", 403, False),
    "BSE2001": ("invalid_input", 400, False),
    "BSE2002": ("file_too_large", 422, False),
    "BSE2003": ("file_too_small", 422, False),
    "BSE2004": ("unsupported_file_format", 422, False),
    "BSE2005": ("file_load_error", 422, False),
    "BSE2006": ("content_policy_violation", 422, False),
    "BSE2007": ("file_size_exceeded", 422, False),
    "BSE2008": ("parameter_out_of_range", 422, False),
    "BSE2009": ("file_download_error", 422, False),
    "BSE2010": ("payload_too_large", 413, False),
    "BSE2011": ("model_not_found", 404, False),
    "BSE2012": ("model_media_mismatch", 400, False),
    "BSE2013": ("invalid_provider_order", 400, False),
    "BSE2014": ("invalid_idempotency_key", 400, False),
    "BSE2015": ("idempotency_key_reused", 409, False),
    "BSE2016": ("idempotency_in_progress", 409, True),
    "BSE3001": ("generation_not_found", 404, False),
    "BSE3002": ("generation_not_cancelable", 409, False),
    "BSE3003": ("generation_in_progress", 409, False),
    "BSE4001": ("provider_error", 502, True),
    "BSE4002": ("provider_timeout", 504, True),
    "BSE4003": ("provider_rate_limited", 503, True),
    "BSE4004": ("provider_capacity", 503, True),
    "BSE4005": ("provider_rejected_input", 422, False),
    "BSE4006": ("all_providers_failed", 502, True),
    "BSE4007": ("provider_credits_exhausted", 502, False),
    "BSE4008": ("provider_authentication_failed", 502, False),
    "BSE4009": ("provider_outcome_unknown", 502, False),
    "BSE4010": ("provider_output_invalid", 502, True),
    "BSE4011": ("no_provider_available", 503, True),
    "BSE5001": ("internal_error", 500, False),
    "BSE5002": ("service_unavailable", 503, True),
    "BSE5003": ("storage_error", 502, True),
    "BSE5004": ("generation_expired", 504, True),
}

STATUS: Shape = {
    "account_id": uuid,
    "apikey_id": uuid,
    "apikey_name": text,
    "apikey_prefix": lambda value: len(value) == 9 and value.startswith("bye_"),
    "apikey_created_at": moment,
    "apikey_last_used_at": maybe(moment),
    "apikey_expires_at": maybe(moment),
}
USAGE: Shape = {
    "account_id": uuid,
    "usage_period_days": count,
    "usage_credit_balance": money,
    "usage_total_requests": count,
    "usage_total_success": count,
    "usage_total_client_errors": count,
    "usage_total_server_errors": count,
    "usage_total_generations": count,
    "usage_total_provider_submissions": count,
    "usage_total_estimated_cost": money,
    "usage_endpoints": [
        {
            "endpoint": text,
            "total_requests": count,
            "success_count": count,
            "client_error_count": count,
            "server_error_count": count,
            "error_codes": mapping(count),
        }
    ],
    "usage_providers": [
        {
            "provider": text,
            "total_submissions": count,
            "used_count": count,
            "cancelled_count": count,
            "discarded_count": count,
            "failed_count": count,
            "total_estimated_cost": money,
            "wasted_estimated_cost": money,
        }
    ],
}
ACCOUNT: Shape = {
    "account_id": uuid,
    "account_name": text,
    "account_email": maybe(text),
    "account_is_personal": flag,
    "account_picture_url": maybe(text),
    "account_created_at": moment,
}
BILLING: Shape = {
    "account_id": uuid,
    "billing_plan": maybe(text),
    "billing_credit_balance": money,
    "billing_subscription_status": maybe(text),
    "billing_cancel_at_period_end": maybe(flag),
    "billing_currency": maybe(text),
    "billing_period_starts_at": maybe(moment),
    "billing_period_ends_at": maybe(moment),
    "billing_created_at": maybe(moment),
    "billing_updated_at": maybe(moment),
}
ESTIMATE_IMAGE: Shape = {
    "model_identifier": text,
    "model_type": "image",
    "assets_count": count,
    "cost_per_generation": money,
    "cost_total_consumed": money,
    "credit_balance": money,
    "credit_balance_can_afford": flag,
    "credit_balance_max_affordable": count,
    "resolution?": text,
}
ESTIMATE_VIDEO: Shape = {
    **ESTIMATE_IMAGE,
    "model_type": "video",
    "cost_per_second": money,
    "duration_seconds": count,
}
ACCEPTED: Shape = {
    "model_identifier": text,
    "generation_provider_order": [text],
    "generation_prediction_id": text,
    "generation_id": uuid,
    "generation_initialized": True,
}
CANCELED_MEANWHILE: Shape = {"generation_id": uuid, "generation_status": "canceled"}
CANCEL: Shape = {
    "generation_id": uuid,
    "generation_status": "canceled",
    "provider_cancel_sent": flag,
    "credits_refunded": money,
}
DELETE: Shape = {"generation_id": uuid, "files_deleted": count}

#: Members of every generation, whatever its state; the echoed inputs stand beside them.
GENERATION: Mapping[str, Shape] = {
    "account_id": uuid,
    "generation_id": uuid,
    "model_identifier": text,
    "generation_provider_order": [text],
    "generation_provider_used": maybe(text),
    "generation_prediction_id": maybe(text),
    "generation_status": one_of("pending", "processing", "succeeded", "failed", "canceled"),
    "generation_output_file": maybe([text]),
    "generation_created_at": moment,
    "generation_started_at": maybe(moment),
    "generation_completed_at": maybe(moment),
    "generation_metrics_total_time": maybe(number),
    "generation_metrics_predict_time": maybe(number),
}
#: Beside the echoed inputs, only of videos.
VIDEO: Mapping[str, Shape] = {
    "generation_duration": count,
    "generation_resolution": text,
    "generation_generate_audio": flag,
    "generation_audio_mode": one_of("audio", "noaudio"),
}
FAILURE: Mapping[str, Shape] = {
    "generation_error": text,
    "generation_error_code": lambda value: value in ERRORS,
}

HEALTH_PROVIDERS: Shape = {
    "service": "providers",
    "healthy": flag,
    "providers_total": count,
    "providers": [
        {
            "provider": text,
            "status": one_of("healthy", "recovering", "degraded", "unknown"),
            "failure_rate": share,
            "window": {
                "total_attempts": count,
                "failures": count,
                "successes": count,
                "duration_seconds": count,
            },
        }
    ],
}
PRICING: Shape = either(money, mapping(money))
HEALTH_MODELS: Shape = {
    "service": "models",
    "healthy": flag,
    "models_total": count,
    "models": [
        {
            "model_identifier": text,
            "model_type": one_of("image", "video"),
            "model_pricing?": PRICING,
            "providers": mapping({"available": flag, "raw_model_id": maybe(text)}),
        }
    ],
}
HEALTH_STORAGE: Shape = {
    "service": "storage",
    "healthy": flag,
    "latency_ms": number,
    "bucket": text,
    "error?": text,
}
HEALTH_CACHE: Shape = {"service": "redis", "healthy": flag, "latency_ms": number, "error?": text}
LIBRARY_PROVIDERS: Shape = {
    "providers_total": count,
    "providers": [
        {
            "provider_id": text,
            "provider_name": text,
            "provider_description": text,
            "provider_website": maybe(text),
            "provider_docs": maybe(text),
            "provider_status": text,
            "babysea_implementation": {
                "delivery_method": one_of("webhook_with_polling", "synchronous", "polling"),
                "cancel_method": one_of("prediction_cancel_api", "queue_cancel_api", None),
                "webhook_verification": one_of("hmac_sha256", "ed25519", None),
                "error_mapping": "bse_error_codes",
                "cost_tracking": "per_generation_usd",
                "schema_conversion": "unified_to_native",
                "failover_strategy": "sequential_provider_chain",
                "health_monitoring": "circuit_breaker",
                "supported_media_types": [one_of("image", "video")],
                "supported_models_total": count,
            },
        }
    ],
}
LIBRARY_MODELS: Shape = {
    "models_total": count,
    "models": [
        {
            "model_type": one_of("image", "video"),
            "model_identifier": text,
            "model_pricing": PRICING,
            "model_supported_provider": [text],
            "schema": {
                "generation_prompt": flag,
                "generation_ratio": [text],
                "generation_output_format": [text],
                "generation_output_number": count,
                "generation_input_file": flag,
                "generation_duration?": [count],
                "generation_resolution?": [text],
                "generation_generate_audio?": flag,
            },
            "specific_schema": [text],
        }
    ],
}
