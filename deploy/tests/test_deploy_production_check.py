"""The reference deployment, as it is rendered, has no findings; one careless option has."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy_settings import KNOWLEDGE, deployed
from mks_check import check
from mks_deploy.rendering import render
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed


def rendered(folder: Path, *texts: str, nginx: tuple[int, ...] = (1, 26, 3)) -> Path:
    for file in render(read_settings(deployed(*texts)), Installed(nginx, (3, 5, 0))):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, "utf-8")
        path.chmod(file.mode)
    return folder


@pytest.mark.parametrize("nginx", [(1, 22, 1), (1, 26, 3)])
def test_the_reference_deployment_has_no_findings(tmp_path: Path, nginx: tuple[int, ...]) -> None:
    folder = rendered(tmp_path, nginx=nginx)
    report = check(files=[KNOWLEDGE, folder / "etc", folder / "usr", folder / "docker"])
    assert [(finding.id, finding.file, finding.evidence) for finding in report.findings] == []
    assert report.failed == ()
    assert {"MKS-SET-008", "MKS-DEP-001", "MKS-DEP-015", "MKS-DEP-040", "MKS-DEP-061", "MKS-DEP-070"} <= {
        *report.checked
    }


def test_the_manifests_for_kubernetes_have_no_findings(tmp_path: Path) -> None:
    report = check(files=[rendered(tmp_path) / "kubernetes"])
    assert [(finding.id, finding.file, finding.evidence) for finding in report.findings] == []


def test_one_careless_change_is_found(tmp_path: Path) -> None:
    folder = rendered(tmp_path)
    proxy = folder / "etc" / "nginx" / "knowledge-system" / "proxy.conf"
    proxy.write_text(
        proxy.read_text("utf-8").replace(
            "X-Forwarded-For $remote_addr", "X-Forwarded-For $proxy_add_x_forwarded_for"
        )
    )
    report = check(files=[folder / "etc", folder / "usr"])
    assert {finding.id for finding in report.findings} == {"MKS-DEP-002"}
