"""What is rendered for containers and Kubernetes, as the tools of those worlds read it; nothing is built here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_host import Host
from deploy_settings import deployed
from mks_deploy.healthcheck import healthy
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import credential_errors, make_missing
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.template_tables import STRIPPED_HEADERS
from mks_deploy.versions import Installed
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.services import program, unavailable


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    host = Host()
    host.render()
    yield host.root
    host.stop()


def documents(folder: Path) -> list[dict[str, Any]]:
    return [each for file in sorted(folder.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]


def test_hadolint_has_nothing_to_say(root: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        unavailable("hadolint", "its package has no wheel for this platform")
    done = subprocess.run([hadolint, root / "docker/Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_has_no_shell_and_no_root(root: Path) -> None:
    last = (root / "docker/Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert last.startswith("gcr.io/distroless/")
    assert "\nRUN" not in last
    assert "\nUSER 65532:65532\n" in last
    assert "HEALTHCHECK" in last
    ast.parse((root / "docker/gunicorn.conf.py").read_text())


def test_services_of_compose_can_do_little(root: Path) -> None:
    compose = yaml.safe_load((root / "docker/compose.yml").read_text())
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] not in {"root", "0", "0:0"}, name
        assert "mem_limit" in service, name
        assert "ports" not in service, name
    named = {secret for service in compose["services"].values() for secret in service.get("secrets", [])}
    assert named <= compose["secrets"].keys()
    assert compose["services"]["postgres"]["healthcheck"]


@pytest.mark.redis
def test_secrets_for_compose_are_good_and_open_its_redis(root: Path, tmp_path: Path) -> None:
    import redis

    secrets = tmp_path / "secrets"
    host = Host()
    settings = read_settings(host.settings_text())
    host.stop()
    made = make_missing(secrets, settings, compose=True)
    assert list(credential_errors(secrets, settings)) == []
    compose = yaml.safe_load((root / "docker/compose.yml").read_text())
    assert {file["file"].removeprefix("../secrets/") for file in compose["secrets"].values()} <= {*made}
    password = (secrets / "database_password").read_text().strip()
    assert f":{password}@postgres/" in (secrets / "database_url").read_text()
    command = compose["services"]["redis"]["command"]
    command[:2] = [program("redis-server"), str(secrets / "redis_auth")]
    port = free_port()
    process = subprocess.Popen(
        [*command, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: accepts_connections(port))
        url = (secrets / "redis_url").read_text().strip().replace("@redis:6379", f"@127.0.0.1:{port}")
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("version", ["1.34", pytest.param("1.31", marks=pytest.mark.slow)])
def test_manifests_are_what_kubernetes_knows(root: Path, version: str) -> None:
    import kubernetes_validate

    known = [each for each in documents(root / "kubernetes") if not _foreign(each)]
    assert {"Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "Namespace"} <= {
        each["kind"] for each in known
    }
    for each in known:
        kubernetes_validate.validate(each, version, strict=True)


def _foreign(document: dict[str, Any]) -> bool:
    """Kinds that extensions bring along; no schema of Kubernetes itself describes them."""
    return document["apiVersion"].startswith(("gateway.networking", "kustomize.config"))


def test_pods_are_what_the_restricted_profile_admits(root: Path) -> None:
    pods = [
        each["spec"]["template"]["spec"]
        for each in documents(root / "kubernetes")
        if each["kind"] == "Deployment"
    ]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"].keys() == {"requests", "limits"}


def test_a_job_migrates_once_with_what_the_pods_have(root: Path) -> None:
    (job,) = (each for each in documents(root / "kubernetes") if each["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][0] == "/opt/venv/bin/flask"
    assert container["command"][1:3] == ["--app", "knowledge_system.app:from_env()"]
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    application = next(
        each for each in documents(root / "kubernetes") if each["metadata"].get("name") == "application"
    )
    serving = application["spec"]["template"]["spec"]["containers"][0]
    for key in ("image", "env", "envFrom", "securityContext"):
        assert container[key] == serving[key]


def test_images_are_pinned_by_digest_where_it_is_given() -> None:
    digest = f"sha256:{'0a' * 32}"
    text = deployed(f'[image]\nbuild_from = "python:3.13@{digest}"\nrun_from = "example.jp/base:1@{digest}"')
    files = {file.path: file.text for file in render(read_settings(text), Installed())}
    assert re.findall(r"(?m)^FROM (\S+)", files["docker/Dockerfile"]) == [
        f"python:3.13@{digest}",
        f"example.jp/base:1@{digest}",
    ]
    for bad in ("python", "python:3 AS x", "python:3@sha256:1", "python:3\\nRUN id"):
        with pytest.raises(DeploySettingsError, match=r"image\.run_from must be an image"):
            read_settings(deployed(f'[image]\nrun_from = "{bad}"'))


def test_probes_ask_what_each_is_for(root: Path) -> None:
    application = next(
        each
        for each in documents(root / "kubernetes")
        if each["metadata"].get("name") == "application" and each["kind"] == "Deployment"
    )
    container = application["spec"]["template"]["spec"]["containers"][0]
    assert (
        container["livenessProbe"]["httpGet"]["path"]
        == container["startupProbe"]["httpGet"]["path"]
        == "/livez"
    )
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_what_people_hand_in_outlives_a_container(root: Path) -> None:
    """In a folder of a volume that every container of the application shares."""
    compose = yaml.safe_load((root / "docker" / "compose.yml").read_text(encoding="utf-8"))
    for name in ("application", "worker"):
        service = compose["services"][name]
        (folder,) = (volume.partition(":")[2] for volume in service["volumes"] if volume.startswith("state:"))
        assert service["environment"]["MKS_UPLOADS"] == f"{folder}/uploads"
    whole = documents(root / "kubernetes")
    claim, spool = (each for each in whole if each["kind"] == "PersistentVolumeClaim")
    assert spool["metadata"]["name"] == "spool"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for language in ("en", "ja"):  # not every cluster has that, so whoever sets one up must be told
        result = Path(__file__).parents[2] / "docs" / language / "how-to" / "run-in-containers.md"
        assert "`ReadWriteMany`" in result.read_text(encoding="utf-8")
    (setting,) = (
        line.partition("=")[2]
        for line in (root / "kubernetes" / "settings.env").read_text(encoding="utf-8").splitlines()
        if line.startswith("MKS_UPLOADS=")
    )
    for pod in (each["spec"]["template"]["spec"] for each in whole if each["kind"] == "Deployment"):
        assert {"name": "uploads", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod[
            "volumes"
        ]
        assert {"name": "uploads", "mountPath": setting} in pod["containers"][0]["volumeMounts"]


def test_pods_write_where_something_is_mounted() -> None:
    """The root is read-only: an alert that cannot be kept would end the application when it starts."""
    host = Host(upkeep='smtp_host = "mail.example.jp"')
    try:
        host.render()
        text = (host.root / "kubernetes/settings.env").read_text()
        whole = documents(host.root / "kubernetes")
    finally:
        host.stop()
    given = dict(line.split("=", 1) for line in text.splitlines())
    assert "MKS_SMTP_HOST" in given
    written = [given[name] for name in ("MKS_ALERT_SPOOL", "MKS_UPLOADS")]
    assert not {"MKS_LOG_FILE", "MKS_DATA_DIR"} & given.keys()
    for pod in (each["spec"]["template"]["spec"] for each in whole if each["kind"] == "Deployment"):
        mounts = [
            each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if not each.get("readOnly")
        ]
        for folder in written:
            assert any(folder == mount or folder.startswith(f"{mount}/") for mount in mounts), folder


def test_every_name_that_is_meant_is_there(root: Path) -> None:
    whole = documents(root / "kubernetes")
    kustomization = next(each for each in whole if each["kind"] == "Kustomization")
    files = {file.name for file in (root / "kubernetes").iterdir()}
    assert set(kustomization["resources"]) < files
    made = {each["name"] for key in ("configMapGenerator", "secretGenerator") for each in kustomization[key]}
    assert made == {"settings", "gunicorn", "credentials"}
    route = next(
        each for each in whole if each["kind"] == "HTTPRoute" and each["metadata"]["name"] == "application"
    )
    removed = route["spec"]["rules"][0]["filters"][0]["requestHeaderModifier"]["remove"]
    assert len(removed) <= 16
    assert set(removed) <= set(STRIPPED_HEADERS)


def test_a_pool_of_pods_stays_below_the_connections_of_the_database(root: Path) -> None:
    host = Host()
    settings = read_settings(host.settings_text())
    host.stop()
    scaler = next(
        each for each in documents(root / "kubernetes") if each["kind"] == "HorizontalPodAutoscaler"
    )
    most = (scaler["spec"]["maxReplicas"] + 1) * settings.gunicorn.workers * settings.gunicorn.threads
    assert most <= settings.stores.database_connections


def test_the_health_check_needs_no_shell(http_sink: Any) -> None:
    assert healthy(f"{http_sink.url}/readyz")
    assert not healthy("http://127.0.0.1:9/readyz")
