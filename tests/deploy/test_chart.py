"""The Helm chart: rendered by Helm's own library, and every object held against Kubernetes' schemas."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.files import CHART, image_environment
from typer.testing import CliRunner

from babysea_server.cli.main import app
from babysea_server.settings import load_settings
from babysea_server.telemetry.health import HEALTHY, READY

helm = pytest.importorskip("helm_python.chart", reason="helm-python-sdk is not installed")
kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

#: The oldest version that the chart names, and the newest that the schemas are there of.
_VERSIONS = ("1.29", "1.34")

_LEAST: Mapping[str, Any] = {"domain": "media.example.com", "storageUrl": "s3://bucket/outputs"}
_MOST: Mapping[str, Any] = {
    **_LEAST,
    "regions": ["us", "eu"],
    "image": {"digest": f"sha256:{'a' * 64}", "pullSecrets": ["registry"]},
    "secrets": {"environment": ["babysea-s3", "babysea-providers"]},
    "trustedProxies": ["10.0.0.0/8", "fd00::/8"],
    "settings": {"BABYSEA_SIGN_UP": "closed", "BABYSEA_REQUEST_LOG_DAYS": 7, "BABYSEA_BREAKER_ENABLED": True},
    "api": {"autoscaling": {"enabled": True}},
    "worker": {"autoscaling": {"enabled": True}, "stopSeconds": 120},
    "ingress": {"className": "nginx", "tlsSecret": "tls", "extraHosts": ["api.customer.example"]},
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "metricsFrom": [{"namespaceSelector": {}}],
    },
    "migrate": {"finish": True},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "serviceAccount": {"annotations": {"example.com/role": "babysea"}},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "media", "operator": "Exists"}],
    "priorityClassName": "high",
}


def _rendered(values: Mapping[str, Any], **options: Any) -> dict[tuple[str, str], dict[str, Any]]:
    files = helm.Chart.load(CHART).render(dict(values), name="babysea", namespace="media", **options)
    objects = [
        document
        for name, text in files.items()
        if not name.endswith(".txt")
        for document in yaml.safe_load_all(text)
        if document is not None
    ]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def _pod(objects: dict[tuple[str, str], dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = objects[kind, name]["spec"]["template"]["spec"]
    return spec


def _environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    report = helm.lint(CHART, dict(_LEAST), strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize("version", _VERSIONS)
@pytest.mark.parametrize("values", [_LEAST, _MOST], ids=["least", "most"])
def test_every_object_is_valid(values: Mapping[str, Any], version: str) -> None:
    objects = _rendered(values)
    for (kind, _), document in objects.items():
        if kind != "PodMonitor":  # of the Prometheus operator, whose schemas are not Kubernetes'
            kubernetes.validate(document, version, strict=True)
    assert len(objects) == (14 if values is _LEAST else 18)


@pytest.mark.parametrize(
    "wrong",
    [
        {"domain": ""},
        {"storageUrl": "file:///files"},
        {"regions": ["mars"]},
        {"image": {"tag": "latest"}},
        {"settings": {"lower_case": "x"}},
        {"misspelt": True},
        {"api": {"replica": 3}},
    ],
    ids=str,
)
def test_values_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="don't meet the specifications"):
        _rendered({**_LEAST, **wrong})


@pytest.mark.parametrize("values", [_LEAST, _MOST], ids=["least", "most"])
@pytest.mark.parametrize("process", ["api", "worker", "console", "migrate"])
def test_a_pod_is_confined_and_its_settings_are_understood(
    process: str, values: Mapping[str, Any], tmp_path: Path
) -> None:
    kind = "Job" if process == "migrate" else "Deployment"
    pod = _pod(_rendered(values), kind, f"babysea-{process}")
    assert pod["automountServiceAccountToken"] is False
    # Kubernetes would set BABYSEA_PORT and others for the services beside it.
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= container["resources"].keys()
    assert container["args"][0] == process

    environment = {**image_environment(), **_environment(container)}
    for name, value in environment.items():
        if name.endswith("_FILE"):
            assert value.startswith("/run/secrets/babysea/")
            assert Path(value).name == name.removesuffix("_FILE")
            (tmp_path / name).write_text("a secret that is long enough for all of them")
            environment[name] = str(tmp_path / name)
    settings = load_settings(environment)
    assert settings.domain == "media.example.com"
    assert settings.console_enabled is (process == "console")
    if values is _MOST:
        assert settings.regions == ("us", "eu")
        assert settings.database_url_eu is not None
        assert settings.trusted_proxies == ("10.0.0.0/8", "fd00::/8")
        assert (settings.sign_up, settings.request_log_days) == ("closed", 7)


@pytest.mark.parametrize("process", ["api", "worker", "console"])
def test_probes_ask_a_port_that_the_process_listens_at(process: str) -> None:
    [container] = _pod(_rendered(_LEAST), "Deployment", f"babysea-{process}")["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    first = int(image_environment()["BABYSEA_METRICS_PORT"])
    assert ports["metrics"] == first + ("api", "worker", "console").index(process)
    served = {"api": 8000, "console": 8001}
    assert ports.get("http") == served.get(process)
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"http" if process in served else "metrics"}
    assert (probes["liveness"]["path"], probes["readiness"]["path"]) == (HEALTHY, READY)
    assert probes["startup"]["path"] == HEALTHY


@pytest.mark.parametrize("values", [_LEAST, _MOST], ids=["least", "most"])
def test_a_pod_has_more_time_to_end_than_its_process_takes(values: Mapping[str, Any]) -> None:
    objects = _rendered(values)
    stop = values.get("worker", {}).get("stopSeconds", 5)
    worker = _pod(objects, "Deployment", "babysea-worker")
    assert worker["terminationGracePeriodSeconds"] >= stop + 5
    assert _environment(worker["containers"][0])["BABYSEA_WORKER_STOP_S"] == str(stop)
    api = _pod(objects, "Deployment", "babysea-api")
    waits = int(api["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert api["terminationGracePeriodSeconds"] >= waits + 10


def test_the_ingress_leads_the_console_and_the_api_to_their_services() -> None:
    objects = _rendered(_MOST)
    ingress = objects["Ingress", "babysea"]["spec"]
    ways = {
        (rule["host"], path["path"]): path["backend"]["service"]["name"]
        for rule in ingress["rules"]
        for path in rule["http"]["paths"]
    }
    assert ways == {
        ("api.us.media.example.com", "/console"): "babysea-console",
        ("api.us.media.example.com", "/"): "babysea-api",
        ("api.eu.media.example.com", "/console"): "babysea-console",
        ("api.eu.media.example.com", "/"): "babysea-api",
        ("api.customer.example", "/"): "babysea-api",
    }
    assert set(ingress["tls"][0]["hosts"]) == {host for host, _ in ways}
    for name in ("babysea-api", "babysea-console"):
        selector = objects["Service", name]["spec"]["selector"]
        labels = objects["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items()


def test_migrations_run_before_anything_changes_and_only_if_wanted() -> None:
    annotations = _rendered(_LEAST)["Job", "babysea-migrate"]["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert ("Job", "babysea-migrate") not in _rendered({**_LEAST, "migrate": {"enabled": False}})


def test_what_only_old_processes_need_is_taken_away_after_an_upgrade_and_only_if_wanted() -> None:
    assert ("Job", "babysea-migrate-finish") not in _rendered(_LEAST)
    job = _rendered({**_LEAST, "migrate": {"finish": True}})["Job", "babysea-migrate-finish"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-upgrade"
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate", "--finish"]
    # Refused while a process of the version before is there: it is tried until that has gone.
    assert job["spec"]["backoffLimit"] >= 10
    assert CliRunner().invoke(app, [*container["args"], "--help"]).exit_code == 0


def test_a_scaled_deployment_says_no_number_of_its_own() -> None:
    objects = _rendered(_MOST)
    for process in ("api", "worker"):
        assert "replicas" not in objects["Deployment", f"babysea-{process}"]["spec"]
        scaler = objects["HorizontalPodAutoscaler", f"babysea-{process}"]["spec"]
        assert scaler["scaleTargetRef"]["name"] == f"babysea-{process}"
    assert objects["Deployment", "babysea-console"]["spec"]["replicas"] == 1
