"""What the operator's book names is there: events of the log, metrics, alerts, codes, settings, commands."""

import re

import msgspec
from tests.docs.pages import ROOT, SERVER, headings, page, rows

from babysea_server import errors
from babysea_server.errors import ErrorSpec
from babysea_server.settings import Settings, environment_name

_BOOK = page("docs/operating.md")
_SECTIONS = ("When something fails", "What to look for in the logs")


def _named(*sections: str) -> set[str]:
    """Everything in code font in the tables of some sections."""
    found = headings(_BOOK)
    cells = [cell for section in sections for row in rows(found[section]) for cell in row]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def _events() -> set[str]:
    logged = re.compile(r"_?log\.(?:debug|info|warning|error|exception)\(\s*\"(\w+)\"")
    return {
        event for path in SERVER.rglob("*.py") for event in logged.findall(path.read_text(encoding="utf-8"))
    }


def test_the_events_metrics_and_settings_that_failures_show_exist() -> None:
    metrics = set(re.findall(r"`(babysea_\w+)`", page("docs/observability.md")))
    settings = {field.name for field in msgspec.structs.fields(Settings)}
    providers = {"enabled", "webhook_secret", "jobs_at_once", "submits_per_minute"}
    plain = {name for name in _named(*_SECTIONS, "Tuning") if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)}
    others = {"refused_busy", "pg_wal", "request_log"}  # a class of failure, a folder of PostgreSQL, a table
    assert plain - _events() - metrics - settings - providers - others == set()


def test_the_alerts_that_failures_set_off_exist() -> None:
    alerts = set(re.findall(r"alert: (\w+)", (ROOT / "deploy/prometheus/alerts.yml").read_text()))
    named = {name for name in _named("When something fails") if name.startswith("BabySea")}
    assert len(named) > 10
    assert named <= alerts


def test_the_codes_that_customers_see_exist_and_have_the_status_that_is_told() -> None:
    specs = [spec for spec in vars(errors).values() if isinstance(spec, ErrorSpec)]
    status = {spec.code: spec.status for spec in specs}
    told = [re.fullmatch(r"(?:(\d{3}) )?(BSE\d{4})", name) for name in _named("When something fails")]
    found = [(match[2], match[1]) for match in told if match is not None]
    assert found
    assert all(code in status and (said is None or int(said) == status[code]) for code, said in found)


def test_every_setting_that_holds_a_secret_has_a_way_to_be_changed() -> None:
    table = headings(_BOOK)["Changing secrets"]
    secrets = [
        name
        for name in (environment_name(field.name) for field in msgspec.structs.fields(Settings))
        if re.search(r"KEY(_|$)|SECRET$|_URL(_|$)", name)
    ]
    public = {"BABYSEA_PUBLIC_URL", "BABYSEA_CALLBACK_URL", "BABYSEA_CONSOLE_URL", "STORAGE_URL"}
    public |= {"BABYSEA_STRIPE_API_URL"}
    written = table + headings(_BOOK)["Changing the master key"]
    written += "".join(table.replace("<REGION>", region) for region in ("US", "EU", "JP"))
    assert [name for name in secrets if name not in public and f"`{name}`" not in written] == []
