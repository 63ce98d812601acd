"""The `data` that the document shows for each operation, by operation id."""

from collections.abc import Mapping
from typing import Any

_ACCOUNT = "0198f6a2-3c41-7b1e-9d52-6f0a4c8e2b17"
_KEY = "0198f6a2-9a07-7c33-8e41-1d5b7f9a3c20"
_GENERATION = "0198f6b4-5d18-7f02-a6c9-83e1b4d7f265"
_CREATED = "2026-04-28T12:00:00.000Z"

_GENERATION_DATA: dict[str, Any] = {
    "account_id": _ACCOUNT,
    "generation_id": _GENERATION,
    "model_identifier": "bfl/flux-schnell",
    "generation_provider_order": ["replicate", "fal", "cloudflare"],
    "generation_provider_used": "replicate",
    "generation_prediction_id": "p7Qm2xV9bK4tR8sL",
    "generation_status": "succeeded",
    "generation_prompt": "A lighthouse at dawn, gouache",
    "generation_ratio": "16:9",
    "generation_output_format": "png",
    "generation_output_number": 1,
    "generation_output_file": ["https://storage.example/us/0198f6b4/0.png?signature=..."],
    "generation_created_at": _CREATED,
    "generation_started_at": "2026-04-28T12:00:00.012Z",
    "generation_completed_at": "2026-04-28T12:00:02.480Z",
    "generation_metrics_total_time": 2.48,
    "generation_metrics_predict_time": 1.91,
}

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "status": {
        "account_id": _ACCOUNT,
        "apikey_id": _KEY,
        "apikey_name": "Production",
        "apikey_prefix": "bye_Xk3mQ",
        "apikey_created_at": "2026-04-01T09:30:00.000Z",
        "apikey_last_used_at": "2026-04-28T11:59:58.214Z",
        "apikey_expires_at": None,
    },
    "usage": {
        "account_id": _ACCOUNT,
        "usage_period_days": 30,
        "usage_credit_balance": 8.412,
        "usage_total_requests": 2,
        "usage_total_success": 1,
        "usage_total_client_errors": 1,
        "usage_total_server_errors": 0,
        "usage_total_generations": 1,
        "usage_total_provider_submissions": 1,
        "usage_total_estimated_cost": 0.003,
        "usage_endpoints": [
            {
                "endpoint": "POST /v1/generate/image/{model_identifier}",
                "total_requests": 2,
                "success_count": 1,
                "client_error_count": 1,
                "server_error_count": 0,
                "error_codes": {"BSE2001": 1},
            }
        ],
        "usage_providers": [
            {
                "provider": "replicate",
                "total_submissions": 1,
                "used_count": 1,
                "cancelled_count": 0,
                "discarded_count": 0,
                "failed_count": 0,
                "total_estimated_cost": 0.003,
                "wasted_estimated_cost": 0,
            }
        ],
    },
    "account": {
        "account_id": _ACCOUNT,
        "account_name": "Tidewater Studio",
        "account_email": "studio@example.com",
        "account_is_personal": False,
        "account_picture_url": None,
        "account_created_at": "2026-03-14T08:00:00.000Z",
    },
    "billing": {
        "account_id": _ACCOUNT,
        "billing_plan": "starter",
        "billing_credit_balance": 8.412,
        "billing_subscription_status": "active",
        "billing_cancel_at_period_end": False,
        "billing_currency": "usd",
        "billing_period_starts_at": "2026-04-14T08:00:00.000Z",
        "billing_period_ends_at": "2026-05-14T08:00:00.000Z",
        "billing_created_at": "2026-03-14T08:00:00.000Z",
        "billing_updated_at": "2026-04-14T08:00:00.000Z",
    },
    "estimate": {
        "model_identifier": "bfl/flux-schnell",
        "model_type": "image",
        "assets_count": 4,
        "cost_per_generation": 0.005,
        "cost_total_consumed": 0.02,
        "credit_balance": 8.412,
        "credit_balance_can_afford": True,
        "credit_balance_max_affordable": 1682,
    },
    "generate": {
        "model_identifier": "bfl/flux-schnell",
        "generation_provider_order": ["replicate", "fal", "cloudflare"],
        "generation_prediction_id": "p7Qm2xV9bK4tR8sL",
        "generation_id": _GENERATION,
        "generation_initialized": True,
    },
    "list_generations": {"generations": [_GENERATION_DATA]},
    "get_generation": _GENERATION_DATA,
    "delete_generation": {"generation_id": _GENERATION, "files_deleted": 1},
    "cancel_generation": {
        "generation_id": _GENERATION,
        "generation_status": "canceled",
        "provider_cancel_sent": True,
        "credits_refunded": 0.005,
    },
    "health_inference": {
        "service": "providers",
        "healthy": True,
        "providers_total": 1,
        "providers": [
            {
                "provider": "replicate",
                "status": "healthy",
                "failure_rate": 0.02,
                "window": {"total_attempts": 50, "failures": 1, "successes": 49, "duration_seconds": 300},
            }
        ],
    },
    "health_storage": {"service": "storage", "healthy": True, "latency_ms": 3.1, "bucket": "outputs-us"},
    "health_cache": {"service": "redis", "healthy": True, "latency_ms": 0.4},
    "library_providers": {
        "providers_total": 1,
        "providers": [
            {
                "provider_id": "replicate",
                "provider_name": "Replicate",
                "provider_description": "Runs open and proprietary models behind one prediction API.",
                "provider_website": "https://replicate.com",
                "provider_docs": "https://replicate.com/docs",
                "provider_status": "available",
                "babysea_implementation": {
                    "delivery_method": "webhook_with_polling",
                    "cancel_method": "prediction_cancel_api",
                    "webhook_verification": "hmac_sha256",
                    "error_mapping": "bse_error_codes",
                    "cost_tracking": "per_generation_usd",
                    "schema_conversion": "unified_to_native",
                    "failover_strategy": "sequential_provider_chain",
                    "health_monitoring": "circuit_breaker",
                    "supported_media_types": ["image", "video"],
                    "supported_models_total": 42,
                },
            }
        ],
    },
    "library_models": {
        "models_total": 1,
        "models": [
            {
                "model_type": "image",
                "model_identifier": "bfl/flux-schnell",
                "model_pricing": 0.005,
                "model_supported_provider": ["replicate", "fal", "cloudflare"],
                "schema": {
                    "generation_prompt": True,
                    "generation_ratio": ["1:1", "16:9", "9:16"],
                    "generation_output_format": ["png", "jpg", "webp"],
                    "generation_output_number": 4,
                    "generation_input_file": False,
                },
                "specific_schema": ["generation_seed"],
            }
        ],
    },
}
