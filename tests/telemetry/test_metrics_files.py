"""The files for Prometheus and Grafana, and the page: they name metrics and labels that there are, and all of them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.docs.pages import ROOT, headings, page, rows

from babysea_server.telemetry.metrics import (
    API,
    EVERY,
    WORKER,
    ApiMetrics,
    Family,
    ProcessMetrics,
    WorkerMetrics,
    new_registry,
)

FAMILIES = {family.name: family for family in (*EVERY, *API, *WORKER)}
#: Of Prometheus itself, and of its client for Python.
OTHERS = {
    "up",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}
_NAME = re.compile(r"\b((?:babysea|process)_[a-z_]+|up)(?:\{([^}]*)\})?")
_SUFFIX = re.compile(r"_(bucket|count|sum)$")


def alerts() -> list[dict[str, Any]]:
    loaded = yaml.safe_load(page("deploy/prometheus/alerts.yml"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(page("deploy/grafana/babysea.json"))
    return loaded


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]


def named(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each series of an expression, with the labels that it is chosen by; labels of `by (...)` are no series."""
    plain = re.sub(r"\bby \([^)]*\)", "", expression)
    for name, selector in _NAME.findall(plain):
        yield name, set(re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', "", selector)))


def faults(expression: str) -> list[str]:
    found = []
    for name, labels in named(expression):
        family = FAMILIES.get(name) or FAMILIES.get(_SUFFIX.sub("", name))
        if family is None:
            found += [] if name in OTHERS else [name]
            continue
        if (family.type == "histogram") != (name != family.name):
            found.append(f"{name} is a {family.type}")
        found += [f"{name} has no {label}" for label in labels - {*family.labels, "job", "instance"}]
    return found


def groupings(expression: str) -> set[str]:
    return {
        label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")
    }


KNOWN_LABELS = {label for family in FAMILIES.values() for label in family.labels} | {"le", "instance", "job"}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_asks_for_what_there_is_and_says_why_it_wakes_somebody(rule: dict[str, Any]) -> None:
    assert faults(rule["expr"]) == []
    assert groupings(rule["expr"]) <= KNOWN_LABELS
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "reason", "action"}
    assert all(text.endswith((".", "?")) for text in rule["annotations"].values())
    told = re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))
    assert set(told) <= KNOWN_LABELS
    codes = re.findall(r"BSE\d+", rule["annotations"]["action"])
    assert all(f"`{code}`" in page("docs/errors.md") for code in codes)


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 10


def test_every_panel_asks_for_what_there_is() -> None:
    for expression in dashboard_expressions():
        assert faults(expression) == [], expression
        assert groupings(expression) <= KNOWN_LABELS, expression


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {_SUFFIX.sub("", name) for text in dashboard_expressions() for name, _ in named(text)}
    assert set(FAMILIES) - shown == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


def test_the_example_for_prometheus_loads_the_rules() -> None:
    loaded = yaml.safe_load(page("deploy/prometheus/prometheus.yml"))
    assert [job["job_name"] for job in loaded["scrape_configs"]] == ["babysea"]
    assert all((ROOT / "deploy" / "prometheus" / name).exists() for name in loaded["rule_files"])


def test_what_a_process_registers_is_what_the_table_says() -> None:
    for families, process in ((API, "api"), (WORKER, "worker")):
        registry = new_registry()
        ProcessMetrics.build(registry, "api" if process == "api" else "worker", "0")
        (ApiMetrics if process == "api" else WorkerMetrics).build(registry)
        found = {
            f"{family.name}_total" if family.type == "counter" else family.name: family
            for family in registry.collect()
            if family.name.startswith("babysea_")
        }
        assert set(found) == {family.name for family in (*EVERY, *families)}
        for name, family in found.items():
            assert (family.type, family.documentation) == (FAMILIES[name].type, FAMILIES[name].help)


@pytest.mark.parametrize(
    ("heading", "families"),
    [("Every process", EVERY), ("API and console", API), ("Worker", WORKER)],
    ids=["every", "api", "worker"],
)
def test_the_page_has_each_metric_as_it_is(heading: str, families: tuple[Family, ...]) -> None:
    written = [
        row for row in rows(headings(page("docs/observability.md"))[heading]) if row[0].startswith("`")
    ]
    expected = [
        [f"`{family.name}`", family.type, ", ".join(family.labels) or "-", family.help] for family in families
    ]
    assert written == expected


def test_no_label_takes_what_a_client_or_a_customer_wrote() -> None:
    bounded = {
        *("version", "process", "region", "pool", "state", "operation", "status_class", "code", "surface"),
        *("result", "media", "status", "provider", "outcome", "failure", "kind"),
    }
    assert {label for family in FAMILIES.values() for label in family.labels} <= bounded
