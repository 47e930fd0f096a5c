"""The snippets of second factors, passkeys and passwords do what they say."""

import json
import runpy
from pathlib import Path

import pytest

from soft_authenticator import SoftAuthenticator

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets"

pytestmark = pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel")


@pytest.mark.parametrize("name", ["second_factor.py", "passwords.py"])
def test_it_runs_as_it_stands(name: str) -> None:
    runpy.run_path(str(SNIPPETS / name))


def test_passkeys_with_an_authenticator() -> None:
    site = runpy.run_path(str(SNIPPETS / "passkeys.py"))
    device = SoftAuthenticator("https://www.example.com")
    answer = json.dumps(device.create(site["begin_registration"]("u", "s", "tanaka")))
    assert len(site["finish_registration"]("u", "s", answer)) == 10
    answer = json.dumps(device.get(site["begin_second_factor"]("u", "s")))
    assert site["finish_second_factor"]("u", "s", answer, "203.0.113.9")
    assert not site["finish_second_factor"]("u", "s", answer, "203.0.113.9")
    answer = json.dumps(device.get(site["begin_sign_in"]("s")))
    assert site["finish_sign_in"]("s", answer) == "u"
    assert site["finish_sign_in"]("s", answer) is None
