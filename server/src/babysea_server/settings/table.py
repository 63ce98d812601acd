"""Every setting: its name, default and one sentence. `babysea-server settings` prints them with their values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Region = Literal["us", "eu", "jp"]
REGIONS: tuple[Region, ...] = ("us", "eu", "jp")

#: Settings whose variable may also go without `BABYSEA_` before its name.
PLAIN_NAMES = frozenset(
    {
        "database_url_us",
        "database_url_eu",
        "database_url_jp",
        "database_replica_url_us",
        "database_replica_url_eu",
        "database_replica_url_jp",
        "storage_url",
        "master_key",
        "master_key_other",
        "redis_url",
        "stripe_secret_key",
        "stripe_webhook_secret",
    }
)
#: Settings whose value is never shown, and whose variable may name a file.
SECRET_NAMES = frozenset(
    {
        "master_key",
        "master_key_other",
        "database_url_us",
        "database_url_eu",
        "database_url_jp",
        "database_replica_url_us",
        "database_replica_url_eu",
        "database_replica_url_jp",
        "redis_url",
        "smtp_url",
        "oidc_client_secret",
        "stripe_secret_key",
        "stripe_webhook_secret",
    }
)


#: Where each provider's own tools look for its credentials; `BABYSEA_PROVIDER_<ID>_<SETTING>` works for every provider.
PROVIDER_VARIABLES: Mapping[str, tuple[str, str]] = {
    "REPLICATE_API_TOKEN": ("replicate", "api_key"),
    "FAL_KEY": ("fal", "api_key"),
    "BFL_API_KEY": ("bfl", "api_key"),
    "OPENAI_API_KEY": ("openai", "api_key"),
    "CLOUDFLARE_API_TOKEN": ("cloudflare", "api_key"),
    "CLOUDFLARE_ACCOUNT_ID": ("cloudflare", "account_id"),
    "ARK_API_KEY": ("byteplus", "api_key"),
    "DASHSCOPE_API_KEY": ("alibabacloud", "api_key"),
    "RUNWAYML_API_SECRET": ("runway", "api_key"),
    "GEMINI_API_KEY": ("google", "api_key"),
    "STABILITY_API_KEY": ("stability", "api_key"),
    "COMFYUI_URL": ("comfyui", "base_url"),
    "OPENAI_COMPATIBLE_URL": ("openai_compatible", "base_url"),
    "OPENAI_COMPATIBLE_API_KEY": ("openai_compatible", "api_key"),
}
PROVIDER_PREFIX = "BABYSEA_PROVIDER_"


class SettingsError(ValueError):
    """A setting that cannot be understood; the message names it and where it came from."""


def _text(sentence: str) -> Meta:
    return Meta(description=sentence)


_Positive = Meta(gt=0)


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one provider is called: a table `[providers.<id>]` of the settings file, or variables of the environment."""

    api_key: Annotated[str | None, _text("Its API key or token.")] = None
    base_url: Annotated[
        str | None,
        _text("Where its API is; needed for what you run yourself, else the provider's own address."),
    ] = None
    account_id: Annotated[str | None, _text("The account at the provider, where its addresses name one.")] = (
        None
    )
    webhook_secret: Annotated[
        str | None, _text("What its callbacks are signed with; asked of the provider where it tells.")
    ] = None
    enabled: Annotated[bool, _text("false: not called, whatever credentials there are.")] = True
    jobs_at_once: Annotated[
        Annotated[int, Meta(ge=1)] | None, _text("Jobs in flight at most, per worker process and region.")
    ] = None
    submits_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        _text("Jobs begun in a minute at most, per worker process and region."),
    ] = None
    unknown_outcome: Annotated[
        Literal["fail", "next_provider"],
        _text("After a submit whose answer was lost: fail the generation, or buy from the next provider."),
    ] = "fail"
    private_network: Annotated[bool, _text("true: its API and its files may be at private addresses.")] = (
        False
    )
    options: Annotated[dict[str, str], _text("What only this provider knows; see its page.")] = {}

    def __repr__(self) -> str:
        """Without the values: secrets are among them."""
        return "ProviderSettings(...)"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        named = (value for name, value in self.options.items() if name.endswith(("key", "secret", "token")))
        return tuple(filter(None, (self.api_key, self.webhook_secret, *named)))


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one process. Times are in seconds, sizes in bytes."""

    data_dir: Annotated[str, _text("Folder of the embedded database, local files, the master key.")] = ".data"
    host: Annotated[str, _text("Address the API listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), _text("Port the API listens on; 0 takes a free one.")] = 8000
    domain: Annotated[str, _text("The API answers on api.us.<domain>, api.eu.<domain>, api.jp.<domain>.")] = (
        "localhost"
    )
    regions: Annotated[tuple[Region, ...], Meta(min_length=1), _text("Regions this process serves.")] = (
        REGIONS
    )
    default_region: Annotated[
        Region, _text("Region of localhost and 127.0.0.1 while the domain is localhost.")
    ] = "us"
    public_url: Annotated[
        str | None, _text("Scheme and authority of file links; by default what the caller used.")
    ] = None
    database_url_us: Annotated[
        str | None, _text("PostgreSQL of region us; without it the embedded one is used.")
    ] = None
    database_url_eu: Annotated[
        str | None, _text("PostgreSQL of region eu; without it the embedded one is used.")
    ] = None
    database_url_jp: Annotated[
        str | None, _text("PostgreSQL of region jp; without it the embedded one is used.")
    ] = None
    database_replica_url_us: Annotated[
        str | None,
        _text("Streaming replica of region us's database, for usage and the console's logs and charts."),
    ] = None
    database_replica_url_eu: Annotated[
        str | None,
        _text("Streaming replica of region eu's database, for usage and the console's logs and charts."),
    ] = None
    database_replica_url_jp: Annotated[
        str | None,
        _text("Streaming replica of region jp's database, for usage and the console's logs and charts."),
    ] = None
    database_connections: Annotated[
        int, Meta(ge=2, le=100), _text("Connections at most, per process and region.")
    ] = 12
    storage_url: Annotated[
        str | None,
        _text("Where output files go: s3://, gs://, az:// or file://; by default the data folder."),
    ] = None
    master_key: Annotated[
        str | None, _text("Secret all derived keys come from; made and kept in the data folder when absent.")
    ] = None
    master_key_other: Annotated[
        str | None,
        _text(
            "While the master key is changed: the next one or the one before, accepted and otherwise not used."
        ),
    ] = None
    file_link_lifetime_s: Annotated[
        int, Meta(ge=60, le=604800), _text("How long a signed file link works.")
    ] = 3600
    provider_mode: Annotated[
        Literal["auto", "sandbox"],
        _text(
            "auto: providers with credentials are called; while there is none, the built-in sandbox stands in for "
            "all. sandbox: it always does."
        ),
    ] = "auto"
    providers: Annotated[
        dict[str, ProviderSettings],
        _text("By provider id: credentials and limits; docs/providers.md."),
    ] = {}
    breaker_enabled: Annotated[
        bool, _text("false: providers are tried in order, however they do lately.")
    ] = True
    callback_url: Annotated[
        str | None,
        _text(
            "Scheme and authority where providers reach the API, {region} in it stands for the region; without it "
            "they are polled."
        ),
    ] = None
    exploration_share: Annotated[
        float,
        Meta(ge=0, le=0.5),
        _text("Share of `fastest` generations that try another provider first, to keep its figures alive."),
    ] = 0.02
    catalog_dir: Annotated[
        str | None, _text("Folder with TOML files that override or add models and prices.")
    ] = None
    plans_file: Annotated[str | None, _text("TOML file with plans in place of the built-in ones.")] = None
    sandbox_latency_s: Annotated[
        float, Meta(ge=0, le=3600), _text("How long a sandbox job takes at the least.")
    ] = 0.8
    sandbox_behaviors: Annotated[
        dict[str, str],
        _text('Behaviour of sandbox providers, e.g. { fal = "refuse_busy" }; docs/sandbox.md.'),
    ] = {}
    sandbox_image_edge: Annotated[
        int, Meta(ge=64, le=4096), _text("Longer edge of sandbox pictures in pixels.")
    ] = 1024
    admission_queue: Annotated[int, Meta(ge=1), _text("Requests that may wait for admission at once.")] = 2048
    admission_batch: Annotated[int, Meta(ge=1, le=1024), _text("Requests decided in one database call.")] = (
        256
    )
    admission_calls: Annotated[int, Meta(ge=1, le=16), _text("Admission calls in flight at once.")] = 2
    admission_deadline_s: Annotated[
        float, _Positive, _text("A request not admitted by then is answered BSE5002.")
    ] = 5.0
    worker_concurrency: Annotated[
        int, Meta(ge=1, le=100000), _text("Generations one worker process carries at once, per region.")
    ] = 2000
    worker_lease_s: Annotated[
        float, Meta(ge=1, le=3600), _text("A worker silent for so long has lost its work.")
    ] = 30.0
    worker_poll_s: Annotated[
        float, _Positive, _text("How often a worker looks for work without being woken.")
    ] = 1.0
    drain_s: Annotated[
        float,
        Meta(ge=0, le=300),
        _text(
            "How long an API or console that is told to stop goes on serving while `/readyz` already says 503."
        ),
    ] = 0.0
    worker_stop_s: Annotated[
        float,
        Meta(ge=0, le=3600),
        _text("How long a worker that is told to stop waits for answers to what it is buying."),
    ] = 5.0
    submit_timeout_s: Annotated[float, _Positive, _text("Longest wait for a provider to take a job.")] = 30.0
    image_attempt_timeout_s: Annotated[
        float, _Positive, _text("Longest time one provider may take for an image.")
    ] = 120.0
    video_attempt_timeout_s: Annotated[
        float, _Positive, _text("Longest time one provider may take for a video.")
    ] = 900.0
    expiry_grace_s: Annotated[
        float, _Positive, _text("A generation is given up this long after its whole chain could have run.")
    ] = 600.0
    request_timeout_s: Annotated[float, _Positive, _text("Longest time for answering a request.")] = 30.0
    redis_url: Annotated[
        str | None,
        _text("Redis or Valkey that counts requests for all API processes; without it PostgreSQL does."),
    ] = None
    counters_timeout_s: Annotated[
        float, _Positive, _text("Longest wait for the common count; then a process goes by its own.")
    ] = 0.05
    trusted_proxies: Annotated[
        tuple[str, ...],
        _text("Addresses and networks of proxies whose X-Forwarded-* headers are believed."),
    ] = ()
    auth_failures_per_minute: Annotated[
        int, Meta(ge=1), _text("Invalid keys that one address may send in a minute.")
    ] = 30
    metrics_port: Annotated[
        int,
        Meta(ge=0, le=65533),
        _text(
            "Port where an API tells its metrics and health; a worker takes the next one, a console alone the one "
            "after that; 0: none does."
        ),
    ] = 0
    metrics_host: Annotated[str, _text("Address that metrics and health are told at.")] = "127.0.0.1"
    tracing_endpoint: Annotated[
        Annotated[str, Meta(pattern="^https?://")] | None,
        _text(
            "Where traces are sent over OTLP/HTTP, with the path, e.g. http://127.0.0.1:4318/v1/traces; also "
            "OTEL_EXPORTER_OTLP_ENDPOINT, without it."
        ),
    ] = None
    tracing_sample: Annotated[
        float, Meta(ge=0, le=1), _text("Share of the traces that are kept, the same ones by every process.")
    ] = 1.0
    request_log_days: Annotated[
        int, Meta(ge=1, le=3650), _text("How many days the request log is kept, beside today.")
    ] = 30
    webhooks_allow_private: Annotated[
        bool,
        _text("Development: webhooks may go to http, to loopback and private addresses, and to any port."),
    ] = False
    webhooks_per_endpoint: Annotated[
        int,
        Meta(ge=1, le=1000),
        _text("Deliveries of one endpoint under way at once, over all workers; what fails gets a quarter."),
    ] = 8
    webhooks_keep_days: Annotated[
        int, Meta(ge=1, le=3650), _text("How many days deliveries and their attempts are kept.")
    ] = 30
    smtp_url: Annotated[
        str | None,
        _text("Mail server for notices: smtp://user:password@host:587 or smtps://; without it none is sent."),
    ] = None
    smtp_from: Annotated[str | None, _text("The address that notices are sent from.")] = None
    console_enabled: Annotated[bool, _text("false: no console at `/console` of the API.")] = True
    console_url: Annotated[
        str | None,
        _text(
            "Scheme and authority where people reach the console; by default the default region's API host."
        ),
    ] = None
    sign_up: Annotated[
        Literal["open", "invite", "closed"],
        _text("Who may make a user: everybody, who is invited (and the first one of a region), or nobody."),
    ] = "invite"
    sign_up_plan: Annotated[str, _text("The plan of accounts that are made in the console.")] = "free"
    oidc_issuer: Annotated[
        str | None,
        _text("OpenID Connect provider that people may sign in through, e.g. https://login.example.com."),
    ] = None
    oidc_client_id: Annotated[str | None, _text("The console's client id at that provider.")] = None
    oidc_client_secret: Annotated[
        str | None, _text("The client's secret there; without it the client is a public one.")
    ] = None
    oidc_name: Annotated[str, _text("What the button at sign-in calls that provider.")] = "single sign-on"
    oidc_allowed_domains: Annotated[
        tuple[str, ...],
        _text("Domains of the addresses that may come in through it, invited or not; without any, all may."),
    ] = ()
    dns_resolver: Annotated[
        str | None,
        _text(
            "Name server that custom domains are verified with, address or address:port; else the machine's own."
        ),
    ] = None
    stripe_secret_key: Annotated[
        str | None, _text("Key of Stripe's API; without it accounts buy nothing by themselves.")
    ] = None
    stripe_webhook_secret: Annotated[
        str | None, _text("What Stripe signs its events to `/stripe/events` with.")
    ] = None
    stripe_api_url: Annotated[str | None, _text("Where Stripe's API is, other than usual; for tests.")] = None
    log_format: Annotated[
        Literal["auto", "console", "json"],
        _text(
            "How logs are written to standard error; auto: as lines for people on a terminal, else as JSON."
        ),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _text("Least level that is logged.")
    ] = "info"

    def __repr__(self) -> str:
        """Without the values: secrets are among them, and this ends up in logs."""
        return "Settings(...)"

    @property
    def data_path(self) -> Path:
        """The data folder, absolute."""
        return Path(self.data_dir).expanduser().resolve()

    def database_url(self, region: str) -> str | None:
        """The external database of a region, or None for the embedded one."""
        url: str | None = getattr(self, f"database_url_{region}")
        return url

    def database_replica_url(self, region: str) -> str | None:
        """The replica of a region's database, or None."""
        url: str | None = getattr(self, f"database_replica_url_{region}")
        return url

    @property
    def console_origin(self) -> str:
        """Scheme and authority of the console, for links."""
        if self.console_url is not None:
            return self.console_url.rstrip("/")
        if self.domain == "localhost":
            return f"http://localhost:{self.port}"
        return f"https://api.{self.default_region}.{self.domain}"

    def attempt_timeout_s(self, media: str) -> float:
        """Longest time one provider may take for this kind of media."""
        return self.image_attempt_timeout_s if media == "image" else self.video_attempt_timeout_s


def environment_name(setting: str) -> str:
    """The environment variable that documentation names for a setting."""
    if setting == "providers":
        return f"{PROVIDER_PREFIX}<ID>_<SETTING>"
    return setting.upper() if setting in PLAIN_NAMES else f"BABYSEA_{setting.upper()}"


def describe(settings: Settings) -> list[dict[str, Any]]:
    """One row per setting: name, environment variable, present value (secrets hidden), default, sentence."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        default = {} if field.default is msgspec.NODEFAULT else field.default
        described = msgspec.inspect.type_info(field.type)
        sentence = ""
        if isinstance(described, msgspec.inspect.Metadata) and described.extra_json_schema:
            sentence = described.extra_json_schema.get("description", "")
        hidden = field.name in SECRET_NAMES and value is not None
        if field.name == "providers":
            value = dict.fromkeys(sorted(value), "(set)")
        rows.append(
            {
                "name": field.name,
                "environment": environment_name(field.name),
                "value": "(set)" if hidden else value,
                "default": default,
                "description": sentence,
            }
        )
    return rows
