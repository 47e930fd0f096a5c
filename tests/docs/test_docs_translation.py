"""The check of the translation: one of each is changed, and it is said which."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs" / "glossary.toml").exists(), reason="the documentation is not part of the wheel"
)

ENGLISH = """# Log to a file

How the Redis server writes its cache.

(log-start)=
## Start

See [the variables](../reference/environment.md).

```console
$ echo hello
hello
```

(log-end)=
## End

It ends.
"""
JAPANESE = """# ファイルに記録する

Redis サーバーがキャッシュを書く方法です。

(log-start)=
## 始める

[環境変数](../reference/environment.md)を見てください。

```console
$ echo hello
hello
```

(log-end)=
## 終わり

終わります。
"""
GLOSSARY = (
    'never_translated = ["Redis"]\n\n[terms]\n"cache" = "キャッシュ"\n\n[avoided]\n"サーバ" = "サーバー"\n'
)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The checker, over a small documentation that has nothing wrong."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.delitem(sys.modules, "check_translation", raising=False)
    module = importlib.import_module("check_translation")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "DOCS", tmp_path / "docs")
    for language, text in (("en", ENGLISH), ("ja", JAPANESE)):
        folder = tmp_path / "docs" / language / "how-to"
        folder.mkdir(parents=True)
        (folder / "log.md").write_text(text, encoding="utf-8")
        (tmp_path / f"README{'' if language == 'en' else '.ja'}.md").write_text(text, encoding="utf-8")
    (tmp_path / "docs" / "glossary.toml").write_text(GLOSSARY, encoding="utf-8")
    translated = (tmp_path / "docs" / "ja" / "how-to" / "log.md", tmp_path / "README.ja.md")
    monkeypatch.setattr(sys, "argv", ["check", "--stamp", *map(str, translated)])
    module.main()
    monkeypatch.setattr(sys, "argv", ["check"])
    return module


def said(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        tool.main()
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == bool(lines)
    return lines


def test_a_translation_in_step_is_let_pass(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(tool, capsys) == []


def swapped(text: str) -> str:
    """The two sections in the other order."""
    first, second = text.index("(log-start)="), text.index("(log-end)=")
    return text[:first] + text[second:] + "\n" + text[first:second]


CHANGES: dict[str, tuple[str, Callable[[str], str], str]] = {
    "level": ("ja", lambda text: text.replace("## 始める", "### 始める"), "headings differ: "),
    "heading": ("ja", lambda text: text.replace("## 終わり", "終わり"), "headings differ: "),
    "anchor": ("ja", lambda text: text.replace("(log-end)=", "(log-stop)="), "headings differ: "),
    "order": ("ja", swapped, "headings differ: "),
    "no-anchor": ("both", lambda text: text.replace("(log-end)=\n", ""), "'## End' needs an anchor above it"),
    "fence": ("ja", lambda text: text.replace("$ echo hello", "$ echo  hello"), "log-start: code differs"),
    "link": ("ja", lambda text: text.replace("environment.md", "defaults.md"), "log-start: links differ: "),
    "hash": (
        "en",
        lambda text: text.replace("It ends.", "It has ended."),
        "log-end: translated from another text (",
    ),
    "stamp": (
        "ja",
        lambda text: text.replace("<!-- en:", "<!-- was:"),
        "translated from another text (no stamp",
    ),
    "never-translated": (
        "ja",
        lambda text: text.replace("Redis", "レディス"),
        "'Redis' is not to be translated",
    ),
    "avoided": (
        "ja",
        lambda text: text.replace("サーバー", "サーバ"),
        "line 4: 'サーバ' is called 'サーバー'",
    ),
    "term": ("ja", lambda text: text.replace("キャッシュ", "貯え"), "'cache' is called 'キャッシュ' here"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_named(
    change: str, tool: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where, edit, message = CHANGES[change]
    for language in ("en", "ja") if where == "both" else (where,):
        file = tmp_path / "docs" / language / "how-to" / "log.md"
        before = file.read_text("utf-8")
        file.write_text(edit(before), encoding="utf-8")
        assert file.read_text("utf-8") != before
    lines = said(tool, capsys)
    assert lines
    assert all(line.startswith("docs/ja/how-to/log.md: ") for line in lines)
    assert any(message in line for line in lines), lines


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_page_in_one_language_alone_is_named(
    language: str, tool: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "docs" / language / "how-to" / "log.md").unlink()
    assert said(tool, capsys) == ["how-to/log.md: only in one language"]


def test_the_first_page_of_the_package_is_looked_at_too(
    tool: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    readme = tmp_path / "README.ja.md"
    readme.write_text(readme.read_text("utf-8").replace("$ echo hello", "$ echo"), encoding="utf-8")
    assert said(tool, capsys) == ["README.ja.md: log-start: code differs"]


@pytest.mark.parametrize(
    "file", ["content/messages.json", "content/english/mails.toml", "templates/base.html"]
)
def test_texts_of_the_example_use_the_words_of_the_glossary(
    file: str, tool: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = tmp_path / "examples" / "knowledge_system" / "src" / "knowledge_system" / file
    text.parent.mkdir(parents=True)
    text.write_text("サーバーは動いています。\nサーバは動いています。\n", encoding="utf-8")
    assert said(tool, capsys) == [f"{text.relative_to(tmp_path)}: line 2: 'サーバ' is called 'サーバー'"]
