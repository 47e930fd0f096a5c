"""What is rendered for containers and Kubernetes, as the tools of those worlds read it.

``test_deploy_images.py`` builds and starts it.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import shutil
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

PAGES = Path(__file__).parents[2] / "docs"
GATEWAY_SCHEMA = Path(__file__).parents[2] / "build" / "gateway-schema"


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    host = Host()
    host.render()
    yield host.root
    host.stop()


@pytest.fixture(scope="module")
def applied(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what ``kubectl apply --kustomize`` sends, with the files beside it that the page names."""
    host = Host()
    text = host.settings_text()
    host.stop()
    folder = tmp_path_factory.mktemp("kustomize") / "kubernetes"
    shutil.copytree(root / "kubernetes", folder)
    (folder / "deploy.toml").write_text(text)
    make_missing(folder / "secrets", read_settings(text), compose=True)
    command = [program("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


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
def test_manifests_are_what_kubernetes_knows(applied: list[dict[str, Any]], version: str) -> None:
    import kubernetes_validate

    known = [each for each in applied if not _foreign(each)]
    assert {
        "ConfigMap", "CronJob", "Deployment", "HorizontalPodAutoscaler", "Job", "Namespace", "NetworkPolicy",
        "PersistentVolumeClaim", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount",
    } == {each["kind"] for each in known}  # fmt: skip
    for each in known:
        kubernetes_validate.validate(each, version, strict=True)


def _foreign(document: dict[str, Any]) -> bool:
    """Kinds that extensions bring along; no schema of Kubernetes itself describes them."""
    return document["apiVersion"].startswith("gateway.networking")


def test_routes_are_what_the_gateway_api_knows(applied: list[dict[str, Any]]) -> None:
    """By the types of the API, unpacked by ``tools/get_servers.py``; its rules across fields are not among them."""
    if not GATEWAY_SCHEMA.exists():
        unavailable("the schema of the Gateway API", "no npm when the servers were installed")
    routes = [each for each in applied if _foreign(each)]
    assert [each["kind"] for each in routes] == ["Gateway", "HTTPRoute", "HTTPRoute"]
    assert _problems_of(routes) == []
    redirect = "HTTPRoute/spec/rules/0/filters/0/requestRedirect"
    for right, wrong, problem in (
        ('"hostnames"', '"hostname"', "HTTPRoute/spec/hostname unknown"),
        ('"port": 443', '"port": 0', "Gateway/spec/listeners/1/port minimum"),
        ('"statusCode": 301', '"statusCode": 9', f"{redirect}/statusCode enum"),
        ('"request": "', '"request": "soon ', "HTTPRoute/spec/rules/0/timeouts/request pattern"),
    ):  # fmt: skip
        text = json.dumps(routes)
        assert right in text
        assert problem in _problems_of(json.loads(text.replace(right, wrong)))


def _problems_of(routes: list[dict[str, Any]]) -> list[str]:
    check = (Path(__file__).parent / "gateway_schema" / "check.mjs").read_text(encoding="utf-8")
    done = subprocess.run(
        [program("node"), "--input-type=module", "--eval", check],
        cwd=GATEWAY_SCHEMA, input=json.dumps(routes), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def _pods(whole: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the template of each pod, with the name of what starts it."""
    for each in whole:
        if each["kind"] in {"Deployment", "Job", "CronJob"}:
            spec = each["spec"].get("jobTemplate", each)["spec"]
            yield each["metadata"]["name"], spec["template"]


def _one(whole: list[dict[str, Any]], kind: str, name: str = "application") -> dict[str, Any]:
    (found,) = (each for each in whole if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def test_what_a_pod_mounts_and_runs_is_there(applied: list[dict[str, Any]]) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in applied}
    kinds = {"secret": ("Secret", "secretName"), "configMap": ("ConfigMap", "name")}
    kinds["persistentVolumeClaim"] = ("PersistentVolumeClaim", "claimName")
    assert {name for name, _ in _pods(applied)} == {"application", "worker", "beat", "migrate", "backup"}
    for name, template in _pods(applied):
        pod = template["spec"]
        for volume in pod["volumes"]:
            ((kind, source),) = ((key, value) for key, value in volume.items() if key != "name")
            if kind != "emptyDir":
                wanted, field = kinds[kind]
                assert (wanted, source[field]) in names, (name, volume)
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes, name
        assert all(("ConfigMap", source["configMapRef"]["name"]) in names for source in container["envFrom"])
        assert container["image"].startswith("registry.example.jp/knowledge-system"), name
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        for variable in container["env"]:
            if variable["name"].endswith("_FILE"):
                assert Path(variable["value"]).parent.as_posix() in mounted


def test_selectors_choose_pods_that_there_are(applied: list[dict[str, Any]]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in _pods(applied)}
    for kind, field in (("Service", ("selector",)), ("PodDisruptionBudget", ("selector", "matchLabels"))):
        wanted = _one(applied, kind)["spec"]
        for part in field:
            wanted = wanted[part]
        chosen = [name for name, found in labels.items() if wanted.items() <= found.items()]
        assert chosen == ["application"], kind
    for each in applied:
        if each["kind"] == "Deployment":
            assert each["spec"]["selector"]["matchLabels"] == labels[each["metadata"]["name"]]
    policy = _one(applied, "NetworkPolicy")["spec"]
    assert all(policy["podSelector"]["matchLabels"].items() <= found.items() for found in labels.values())
    (container,) = _one(applied, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["containerPort"] for port in container["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
    named = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in _one(applied, "Service")["spec"]["ports"]} <= named
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in named


def test_no_secret_is_anywhere_but_in_the_secret(applied: list[dict[str, Any]]) -> None:
    (secret,) = (each for each in applied if each["kind"] == "Secret")
    values = [base64.b64decode(text).decode().strip() for text in secret["data"].values()]
    assert len(values) == 4
    others = yaml.safe_dump_all([each for each in applied if each is not secret], width=10_000)
    for value in values:
        assert value not in others


def test_a_pod_ends_after_the_last_request(applied: list[dict[str, Any]], root: Path) -> None:
    """The grace period covers the pause before SIGTERM and gunicorn's drain, and the drain covers any request."""
    pod = _one(applied, "Deployment")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = _number("graceful_timeout", root / "kubernetes/gunicorn.conf.py")
    longest = int(_one(applied, "HTTPRoute")["spec"]["rules"][0]["timeouts"]["request"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] > pause + drain > drain > longest
    statement = int(_setting("MKS_DB_STATEMENT_TIMEOUT", root).removesuffix("s"))
    assert longest > statement
    worker = _one(applied, "Deployment", "worker")["spec"]["template"]["spec"]
    host = Host()
    tasks = read_settings(host.settings_text()).tasks
    host.stop()
    assert worker["terminationGracePeriodSeconds"] > tasks.stop_timeout


def test_memory_suffices_for_each_process(applied: list[dict[str, Any]], root: Path) -> None:
    """512 MiB at most and 128 MiB in general, for each process and for the one that starts them."""
    workers = _number("workers", root / "kubernetes/gunicorn.conf.py")
    assert str(workers) == _setting("MKS_GUNICORN_WORKERS", root)
    processes = {"application": workers, "worker": 2}
    for name, template in _pods(applied):
        resources = template["spec"]["containers"][0]["resources"]
        number = processes.get(name, 1) + 1
        assert resources["limits"]["memory"] == f"{512 * number}Mi", name
        assert resources["requests"]["memory"] == f"{128 * number}Mi", name
    compose = yaml.safe_load((root / "docker" / "compose.yml").read_text(encoding="utf-8"))
    workers = _number("workers", root / "docker/gunicorn.conf.py")
    for name, number in (("application", workers), ("worker", 2), ("beat", 1), ("backup", 1)):
        assert compose["services"][name]["mem_limit"] == f"{512 * (number + 1)}m", name


def _number(name: str, file: Path) -> int:
    (found,) = re.findall(rf"(?m)^{name} = (\d+)$", file.read_text())
    return int(found)


def _setting(name: str, root: Path) -> str:
    text = (root / "kubernetes/settings.env").read_text(encoding="utf-8")
    (found,) = re.findall(rf"(?m)^{name}=(.+)$", text)
    return str(found)


def test_the_scaler_can_scale(applied: list[dict[str, Any]]) -> None:
    scaler, deployment = _one(applied, "HorizontalPodAutoscaler")["spec"], _one(applied, "Deployment")["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "application")
    # A release that named a number would undo what the scaler did.
    assert "replicas" not in deployment
    assert scaler["minReplicas"] < scaler["maxReplicas"]
    (metric,) = scaler["metrics"]
    assert metric["resource"]["name"] == "cpu"
    # A percentage of the request: without one in each container the metric is unknown.
    for container in deployment["template"]["spec"]["containers"]:
        assert container["resources"]["requests"]["cpu"] == "500m"
    budget = _one(applied, "PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] < scaler["minReplicas"]


def test_a_cron_job_backs_up_what_the_pods_write(applied: list[dict[str, Any]]) -> None:
    job = _one(applied, "CronJob", "backup")["spec"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("30 2 * * *", "Forbid")
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    serving = _one(applied, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    (uploads,) = (mount for mount in serving["volumeMounts"] if mount["name"] == "uploads")
    assert mounts["uploads"] == {**uploads, "readOnly": True}
    # Two volumes: a stolen backup must not contain the keys to decrypt it.
    for name in ("backups", "key-backups"):
        assert "readOnly" not in mounts[name]
        assert {"name": name, "persistentVolumeClaim": {"claimName": name}} in pod["volumes"]


def test_pods_are_what_the_restricted_profile_admits(root: Path) -> None:
    pods = [
        each["spec"]["template"]["spec"]
        for each in documents(root / "kubernetes")
        if each["kind"] == "Deployment"
    ]
    assert len(pods) == 3
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
    for key in ("image", "envFrom", "securityContext"):
        assert container[key] == serving[key]
    # The reference application migrates data only with a fresh backup.
    more = [each for each in container["env"] if each not in serving["env"]]
    assert [each["name"] for each in more] == ["MKS_BACKUPS"]
    mount = {"name": "backups", "mountPath": more[0]["value"], "readOnly": True}
    assert mount in container["volumeMounts"]


def test_the_page_names_what_there_is(root: Path, applied: list[dict[str, Any]]) -> None:
    page = (PAGES / "en" / "how-to" / "run-in-containers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?s)```toml\n(.*?)```", page)
    pinned = read_settings(deployed(block.replace("...", "0a" * 32))).image
    assert all(name.endswith("0a" * 32) for name in (pinned.build_from, pinned.run_from))
    services = yaml.safe_load((root / "docker" / "compose.yml").read_text(encoding="utf-8"))["services"]
    named = re.findall(r"run --rm (\S+)", page)
    assert {*named} == {"migrate", "backup"} <= services.keys()
    # Beside the manifests, as in the fixture: no file above their folder is read.
    assert "\ncp -a out/kubernetes .\ncp -a secrets deploy.toml kubernetes/\n" in page
    (target,) = {*re.findall(r"--target (\S+)", page)}
    assert f" AS {target}\n" in (root / "docker" / "Dockerfile").read_text()
    for kind, name in (("CronJob", "backup"), ("Job", "migrate")):
        assert _one(applied, kind, name)


def test_images_are_pinned_by_digest_where_it_is_given() -> None:
    digest = f"sha256:{'0a' * 32}"
    text = deployed(f'[image]\nbuild_from = "python:3.13@{digest}"\nrun_from = "example.jp/base:1@{digest}"')
    files = {file.path: file.text for file in render(read_settings(text), Installed())}
    assert re.findall(r"(?m)^FROM (\S+)", files["docker/Dockerfile"]) == [
        f"python:3.13@{digest}",
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
    claim = _one(whole, "PersistentVolumeClaim", "uploads")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for language in ("en", "ja"):  # not every cluster has that, so whoever sets one up must be told
        result = PAGES / language / "how-to" / "run-in-containers.md"
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
    assert made == {"settings", "gunicorn", "deploy", "credentials"}
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
    workers = _number("workers", root / "kubernetes/gunicorn.conf.py")
    most = (scaler["spec"]["maxReplicas"] + 1) * workers * settings.gunicorn.threads
    assert most <= settings.stores.database_connections


def test_the_health_check_needs_no_shell(http_sink: Any) -> None:
    assert healthy(f"{http_sink.url}/readyz")
    assert not healthy("http://127.0.0.1:9/readyz")
