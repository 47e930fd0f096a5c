"""The Locust file does against the application what it says; Locust itself patches sockets and stays outside."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from deploy_load import WORDS
from knowledge_system.settings import DEMO_PASSWORD

if TYPE_CHECKING:
    import pytest

FILE = Path(__file__).parent.parent / "locustfile.py"


def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file, with a ``locust`` that only remembers weights."""

    def weighted(weight: int) -> Callable[[Any], Any]:
        def mark(function: Any) -> Any:
            function.locust_task_weight = weight
            return function

        return mark

    stand_in = SimpleNamespace(FastHttpUser=object, between=lambda *bounds: bounds, task=weighted)
    monkeypatch.setitem(sys.modules, "locust", stand_in)
    monkeypatch.setitem(sys.modules, "locust.exception", SimpleNamespace(StopUser=RuntimeError))
    found = importlib.util.spec_from_file_location("locustfile", FILE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Answer(SimpleNamespace):
    """An answer, also as what ``catch_response`` gives."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be closed."""


def test_a_reader_signs_in_and_reads(browser: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text(f"kobayashi {DEMO_PASSWORD}\n")
    monkeypatch.setenv("MKS_LOAD_USERS", str(users))
    module = load(monkeypatch)
    answers, failures = list[int](), list[str]()

    class Client:
        """What Locust's session is asked for, on the application; without redirects."""

        def get(self, path: str, *, headers: Any = None, **_: Any) -> Any:
            return self._answer("GET", path, headers=headers or {})

        def post(self, path: str, *, data: Any, headers: Any, **_: Any) -> Any:
            return self._answer("POST", path, data=data, headers=headers)

        def _answer(self, method: str, path: str, **options: Any) -> Any:
            answer = browser.send(method, path, **options)
            answers.append(answer.status_code)
            text = answer.get_data(as_text=True)
            return Answer(text=text, status_code=answer.status_code, failure=failures.append)

    reader = module.Reader()
    reader.client, reader.host = Client(), "https://localhost:8443"
    reader.on_start()
    assert answers == [200, 303]
    mix = [reader.listing, reader.detail, reader.search]
    assert [action.locust_task_weight for action in mix] == [3, 2, 1]
    assert reader.wait_time == (1, 3)
    assert module.WORDS == WORDS
    for action in mix:
        action()
    assert answers[2:] == [200, 200, 200]
    assert failures == []
