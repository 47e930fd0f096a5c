"""Articles of a demonstration, combined from facts in ``content/works.toml``; the same number, the same article."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from knowledge_system.domain.files import drawings

_FIRST: Final = date(2023, 4, 3)
_AUTHORS: Final = ("tanaka", "suzuki", "sato", "yamamoto")
_STATUSES: Final = ("published",) * 17 + ("draft", "review", "retired")
_CHANGES: Final = ("気温が下がった", "材料のロットが替わった", "前日に雨が降った", "班が交代した")
_EARLY: Final = ("関係者と話す", "計画に書く", "下見をする")


class Generated(NamedTuple):
    """An article as ``content/articles`` has it, and its picture, drawn when it is needed.

    The text names the picture ``files/picture.webp``.
    """

    entry: dict[str, Any]
    draw: Callable[[], bytes]


class _Case(NamedTuple):
    """What an article is about: a kind of work at a site, on a day."""

    work: dict[str, Any]
    site: str
    facts: list[str]
    day: date
    chance: random.Random

    @property
    def name(self) -> str:
        return str(self.work["name"])

    def split(self, kind: str) -> list[list[str]]:
        return [line.split("|") for line in self.work[kind]]


class _Text(NamedTuple):
    title: str
    summary: str
    body: str
    tag: str
    draw: Callable[[], bytes]


@cache
def _facts() -> dict[str, Any]:
    text = files("knowledge_system").joinpath("content", "works.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def generated(number: int) -> Generated:
    """Return the article with this number, from 0."""
    works = _facts()["work"]
    turn, index = divmod(number, len(works))
    chance = random.Random(number)  # noqa: S311 - generated articles, not secrets
    sites = [site for site in _facts()["site"] if works[index]["category"] not in site.get("without", ())]
    site = sites[(index * 5 + turn * 3 + turn // len(_KINDS) * 2) % len(sites)]
    day = _FIRST + timedelta(days=(number * 197) % 1300)
    case = _Case(works[index], site["name"], chance.sample(site["facts"], 3), day, chance)
    text = _KINDS[(index + turn) % len(_KINDS)](case, turn)
    times = turn // (len(_KINDS) * len(sites)) + 1
    again = f" その{times}" if times > 1 else ""
    entry = {
        "slug": f"generated-{number}",
        "title": text.title + again,
        "category": case.work["category"],
        "summary": text.summary,
        "body": text.body,
        "tags": list(dict.fromkeys([*case.work["tags"], text.tag])),
        "site": case.site,
        "author": chance.choice(_AUTHORS),
        "status": chance.choice(_STATUSES),
        "comments": list(_comments(case)),
        "updated": day.isoformat(),
    }
    return Generated(entry, text.draw)


def _comments(case: _Case) -> Iterator[dict[str, str]]:
    _, cause, background, _, prevention = case.chance.choice(case.split("defects"))
    other = case.chance.choice(_facts()["site"])["name"]
    texts = [
        f"{other}では「{background}」ことが元になりました。{prevention}ことをお勧めします。",
        f"朝のうちに「{case.chance.choice(case.work['checks'])}」も見ておくと安心です。",
        f"参考になりました。{other}でも来月から始めます。",
        f"{cause}例が{other}にもありました。写真を追って付けます。",
    ]
    for text in case.chance.sample(texts, case.chance.choice((0, 0, 1, 1, 2))):
        yield {"author": case.chance.choice((*_AUTHORS, "kobayashi")), "body": text}


def _day(day: date) -> str:
    return f"{day.month}月{day.day}日"


def _table(head: str, rows: Any) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|---" * columns + "|", *lines])


def _bullets(lines: Any, mark: str = "- ") -> str:
    return "\n".join(f"{mark}{line}" for line in lines)


def _title(case: _Case, forms: Sequence[str], *more: str) -> str:
    return case.chance.choice(forms).format(case.name, case.site, *more)


def _picture(caption: str) -> str:
    return f"![{caption}](files/picture.webp)"


def _procedure(case: _Case, _turn: int) -> _Text:
    chance, (danger, measure) = case.chance, case.chance.choice(case.split("risks"))
    steps = [case.work["steps"][place] for place in sorted(chance.sample(range(5), 4))]
    title = _title(case, ("{0}の施工要領({1})", "{1} {0}の手順", "{1}で決めた{0}の進め方"))
    rows = [[item, limit, tool] for item, limit, _, _, _, tool in case.split("measures")]
    body = "\n\n".join(
        (
            chance.choice(("## この現場の条件", "## 前提", "## 施工の条件")),
            _bullets(case.facts[:2]),
            chance.choice(("## 手順", "## 作業の流れ", "## 進め方")),
            "\n".join(f"{place}. {step}" for place, step in enumerate(steps, 1)),
            _picture(f"{case.name}の模式図"),
            chance.choice(("## 管理値", "## 規格と測り方", "## 出来形と品質")),
            _table("項目 | 規格・目標 | 測る道具", rows),
            chance.choice(("## 止める基準", "## 危ないところ", "## 注意")),
            f"**{danger}**に備え、{measure}。朝礼で「{case.facts[2]}」も伝える。",
        )
    )
    summary = f"{case.site}の{case.name}。{steps[0]}。"
    draw = _drawing(case, f"{case.name} 模式図({case.site})")
    return _Text(title, summary, body, "施工要領", draw)


def _corrective(case: _Case, turn: int) -> _Text:
    chance = case.chance
    seen, cause, background, correction, prevention = case.split("defects")[turn // len(_KINDS) % 2]
    found, done = case.day - timedelta(days=chance.randrange(9, 30)), case.day
    people = chance.sample(("職長", "品質担当", "監理技術者", "測量担当", "所長"), 3)
    rows = [
        [f"{_day(found)}", people[0], seen],
        [f"{_day(found + timedelta(days=1))}", people[1], f"原因を調べ、{cause}と分かった"],
        [f"{_day(done - timedelta(days=2))}", people[2], correction],
    ]
    body = "\n\n".join(
        (
            chance.choice(("## 何が起きたか", "## 発生の状況", "## 事象")),
            f"{case.site}で、{seen}。「{case.facts[0]}」という条件の現場である。",
            _picture(f"是正の箇所({case.site})"),
            chance.choice(("## 経過", "## 対応の記録")),
            _table("日 | 確認者 | 内容", rows),
            "## 原因",
            _bullets((f"直接の原因: {cause}", f"背景: {background}")),
            chance.choice(("## 再発防止", "## 次の現場へ")),
            f"{prevention}。点検表には「{chance.choice(case.work['checks'])}」を加えた。",
        )
    )
    title = chance.choice(("是正報告: {0}({1})", "{1} {0} — 原因と処置", "{0}: {1}の是正の記録")).format(
        seen, case.site
    )
    summary = f"{cause}ため。{prevention}。"
    return _Text(title, summary, body, "是正報告", _drawing(case, f"是正の箇所 {found:%Y-%m-%d}"))


def _checklist(case: _Case, _turn: int) -> _Text:
    chance = case.chance
    checks = chance.sample(case.work["checks"], 4)
    measures = case.split("measures")
    rows = [
        [
            item,
            limit,
            chance.choice(("作業を止めて所長に知らせる", "その場で直し、測り直す", "品質担当が判断する")),
        ]
        for item, limit, *_ in measures
    ]
    when = chance.choice(("毎朝の作業前", "打合せの前日", "雨や地震のあと", "作業の終わり", "週のはじめ"))
    body = "\n\n".join(
        (
            f"{when}に、{chance.choice(('職長', '担当者', '作業主任者'))}が見て歩く。印刷して使える。",
            "## 点検項目",
            _bullets([*checks, *(f"{item}を{tool}で測った" for item, *_, tool in measures[:2])], "- [ ] "),
            chance.choice(("## 判定", "## 外れたとき")),
            _table("項目 | 基準 | 外れたとき", rows),
            "## この現場の条件",
            _bullets(case.facts[:2]),
        )
    )
    title = _title(case, ("{0}の点検表({1})", "{1} {2}に使う点検表: {0}"), when)
    summary = f"{when}の点検。「{checks[0]}」など {len(checks) + 2} 項目。"
    return _Text(title, summary, body, "点検表", _drawing(case, f"点検の範囲 {case.site}"))


def _safety(case: _Case, _turn: int) -> _Text:
    chance, risks = case.chance, case.split("risks")
    rows = [
        [danger, measure, chance.choice(("職長", "誘導員", "安全当番", "元請の担当"))]
        for danger, measure in risks
    ]
    danger, measure = chance.choice(risks)
    near = case.day - timedelta(days=chance.randrange(3, 12))
    body = "\n\n".join(
        (
            f"{_day(near)}の{chance.choice(('午前', '午後', '片付け'))}に、{danger}につながる場面があった。",
            "## 現場の様子",
            _bullets(chance.sample(case.facts, 2)),
            _picture(f"作業の配置({case.site})"),
            chance.choice(("## 危険と対策", "## 決めたこと")),
            _table("危険 | 対策 | 担当", rows),
            "## 全員で守ること",
            f"{measure}。{chance.choice(case.work['steps'])}。迷ったら手を止めて声をかける。",
        )
    )
    title = _title(case, ("ヒヤリハット: {0}中の{2}({1})", "{1} {0}の危険予知", "{2}を防ぐ({1} {0})"), danger)
    return _Text(
        title, f"{danger}を防ぐため、{measure}。", body, "安全", _drawing(case, f"作業の配置 {case.site}")
    )


def _quality(case: _Case, turn: int) -> _Text:
    chance = case.chance
    item, limit, usual, spread, unit, tool = case.split("measures")[turn % 3]
    values = [max(0.0, chance.gauss(float(usual), float(spread))) for _ in range(10)]
    digits = 0 if "." not in usual and float(usual) >= 10 else 2 if float(usual) < 2 else 1
    values = [round(value, digits) for value in values]
    rows = [
        [f"No.{place * 2}", f"{case.day - timedelta(days=20 - place * 2):%m/%d}", f"{value:g}"]
        for place, value in enumerate(values)
    ]
    mean = sum(values) / len(values)
    outlying = max(range(10), key=lambda place: abs(values[place] - mean))
    outlier = f"No.{outlying * 2} が最も離れた。この日は{chance.choice(_CHANGES)}。"
    body = "\n\n".join(
        (
            f"{case.site}の{case.name}で、{item}を{tool}により 10 点測った。規格は {limit}。",
            _picture(f"{item}の推移"),
            _table(f"測点 | 月日 | {item}{f'({unit})' if unit else ''}", rows),
            chance.choice(("## 読み取れること", "## 評価")),
            f"平均 {mean:.{digits + 1}f}{unit}、最大 {max(values):g}、最小 {min(values):g}。{outlier}",
            chance.choice(("## 次の測定まで", "## 続けること")),
            f"{chance.choice(case.work['steps'])}。測定の前に「{chance.choice(case.work['checks'])}」を見る。",
        )
    )
    title = _title(case, ("{0} {2}の管理図({1})", "{1} {0}: {2}の測定結果", "{2}の推移と評価({1} {0})"), item)
    summary = f"{item} 10 点の平均は {mean:.{digits + 1}f}{unit}。規格 {limit} に対する余裕を確かめた。"
    return _Text(title, summary, body, "品質管理", lambda: drawings.plot(f"{item} {case.site}", values, unit))


def _ict(case: _Case, _turn: int) -> _Text:
    chance = case.chance
    rows = []
    for label, low, high in (("所要日数", 6, 24), ("人工", 8, 40), ("手戻り", 2, 9)):
        before = chance.randrange(low, high)
        rows.append((label, float(before), float(max(1, round(before * chance.uniform(0.4, 0.8))))))
    seen = f"「{chance.choice(case.work['checks'])}」は、今も人が見ている。"
    body = "\n\n".join(
        (
            f"{case.work['ict']}。",
            chance.choice(("## 始めたきっかけ", "## 背景")),
            _bullets(case.facts[:2]),
            chance.choice(("## 効果", "## 前と後")),
            _table("項目 | 従来 | 今回", [[label, f"{old:g}", f"{new:g}"] for label, old, new in rows]),
            _picture("従来(上)と今回(下)"),
            chance.choice(("## うまくいかなかったこと", "## 課題")),
            f"通信と電源の準備に {chance.randrange(2, 6)} 日かかった({case.facts[2]})。{seen}",
        )
    )
    title = _title(case, ("{0}のICT活用({1})", "{1} {0}をICTで変えた記録", "ICT施工: {0}({1})"))
    summary = f"{rows[0][0]}を {rows[0][1]:g} から {rows[0][2]:g} に。{case.work['ict'].split('。')[0]}。"
    return _Text(title, summary, body, "ICT施工", lambda: drawings.bars(f"{case.name} {case.site}", rows))


def _review(case: _Case, turn: int) -> _Text:
    chance = case.chance
    seen, _, background, correction, prevention = case.split("defects")[(turn // len(_KINDS) + 1) % 2]
    good = chance.sample(case.work["steps"], 2)
    people = chance.randrange(5, 14)
    rows = [
        [item, limit, f"{float(usual) + chance.uniform(-0.5, 0.5) * float(spread):.3g}{unit}"]
        for item, limit, usual, spread, unit, _ in case.split("measures")
    ]
    body = "\n\n".join(
        (
            f"{case.day.year}年{case.day.month}月に {people} 人で振り返った。条件は「{case.facts[0]}」。",
            chance.choice(("## 続けること", "## よかったこと")),
            _bullets(good),
            chance.choice(("## 直すこと", "## 次は変えること")),
            f"一度、{seen}。{correction}が、元は{background}ことにある。次は{prevention}。",
            "## 実績",
            _table("項目 | 規格 | 平均", rows),
            chance.choice(("## 次の人へ", "## 引継ぎ")),
            f"{case.facts[1]}。早めに{chance.choice(_EARLY)}とよい。",
        )
    )
    title = _title(case, ("{1} {0}の振り返り", "{0}で学んだこと({1})", "{1}から次の現場へ: {0}"))
    return _Text(title, f"続けるのは「{good[0]}」、直すのは「{prevention}」。", body, "振り返り", lambda: b"")


def _drawing(case: _Case, title: str) -> Callable[[], bytes]:
    seed = case.chance.randrange(2**32)
    chance = random.Random(seed)  # noqa: S311 - a drawing, not a secret
    return lambda: drawings.section(title, case.work["category"], chance)


_KINDS: Final = (_procedure, _corrective, _checklist, _safety, _quality, _ict, _review)
