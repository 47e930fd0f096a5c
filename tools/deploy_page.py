"""Write the page of the deployment kit's promises in both languages; rows not measured keep their results."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOADS", "PAGES", "TESTED", "Promise", "Row", "merged", "page", "rows_of"]

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {language: DOCS / language / "reference" / "deployment.md" for language in ("en", "ja")}


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise: its key and its text in each language."""

    key: str
    en: str
    ja: str


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one promise; ``figure`` and ``run`` are shown unchanged in both languages.

    Attributes:
        key: key of the promise.
        holds: whether the promise holds.
        figure: what was counted or measured.
        run: date and commit of the run that measured it; a row that a later run skipped keeps its own.
    """

    key: str
    holds: bool
    figure: str
    run: str = ""


TESTED = (
    Promise(
        "test_deploy_render",
        "Bad settings and secrets: every error in one message, nothing written",
        "誤った設定と秘密情報: すべての誤りを1つのメッセージで伝え、何も書かない",
    ),
    Promise(
        "test_deploy_nginx",
        "nginx: names, redirects, header fields, limits, static files, parts of uploads; nginx -t and gixy silent",
        "nginx: 名前、リダイレクト、ヘッダー、制限、静的ファイル、アップロードの一部。nginx -t と gixy の指摘なし",
    ),
    Promise(
        "test_deploy_gunicorn",
        "gunicorn with its own TLS, and a listener that only redirects",
        "gunicorn 自身の TLS と、リダイレクトだけの待ち受け",
    ),
    Promise(
        "test_deploy_probe",
        "TLS: testssl grade A+; a real host is tested from outside",
        "TLS: testssl の評価 A+。実ホストを外から検査する",
    ),
    Promise(
        "test_deploy_certificates",
        "Certificates: issue, renewal, hook, account binding, failures, against pebble",
        "証明書: pebble を相手に、発行、更新、フック、アカウント紐付け、失敗",
    ),
    Promise(
        "test_deploy_units",
        "Units: exposure at most 1.2; systemd runs each of them, and each timer, with its own filters and accounts",
        "ユニット: 露出度 1.2 以下。systemd が各ユニットと各タイマーを、それぞれのフィルターとアカウントで実行する",
    ),
    Promise(
        "test_deploy_logrotate",
        "Rotation: no line is lost while four processes write",
        "ローテーション: 4プロセスが書く間に1行も失われない",
    ),
    Promise(
        "test_deploy_release",
        "Release and rollback under load: no request fails, whatever step does",
        "負荷中のリリースとロールバック: どの手順が失敗しても、リクエストは失敗しない",
    ),
    Promise(
        "test_deploy_backup",
        "Backup, and a restore with equal checksums and rows",
        "バックアップと、チェックサムと行数の一致するリストア",
    ),
    Promise(
        "test_deploy_watching",
        "Alerts rise and rest, by promtool; Redis and PostgreSQL take their settings",
        "promtool で確かめたアラートの発火と沈黙。Redis と PostgreSQL が設定を受け付ける",
    ),
    Promise(
        "test_deploy_containers",
        "Containers and Kubernetes: hadolint, kubernetes-validate, the Gateway API and compose rules say nothing",
        "コンテナーと Kubernetes: hadolint、kubernetes-validate、Gateway API、compose の規則の指摘なし",
    ),
    Promise(
        "test_deploy_images",
        "Images built by podman; services and pods migrate, serve, finish requests at SIGTERM, back up",
        "podman によるイメージのビルド。サービスと Pod の移行、応答、SIGTERM 時のリクエストの完了、バックアップ",
    ),
    Promise(
        "test_deploy_runbooks",
        "Runbooks: a section for every alert, every command run",
        "ランブック: すべてのアラートに節があり、すべてのコマンドを実行済み",
    ),
    Promise(
        "test_deploy_init",
        "mks-deploy init: finds the application and imports it; of two it chooses none; nothing is half-written",
        "mks-deploy init: 見つけてインポートする。2つあれば選ばない。書きかけのファイルを残さない",
    ),
    Promise(
        "test_deploy_applications",
        "Flask, Django and FastAPI applications of others: form, client, health, no request lost at a reload",
        "Flask、Django、FastAPI の別のアプリケーション: フォーム、ヘルスチェック、再読み込み",
    ),
    Promise(
        "test_deploy_apply",
        "mks-deploy apply: PostgreSQL, Redis and Celery on a bare host; under load only 503 with Retry-After",
        "mks-deploy apply: 素のホストに PostgreSQL、Redis、Celery。負荷中の失敗は Retry-After 付きの 503 のみ",
    ),
    Promise(
        "test_deploy_up",
        "mks-deploy up: from a laptop to one host and to two, cut off and repeated; the firewall and its way back",
        "mks-deploy up: 手元のパソコンから OpenSSH で1台と2台へ。切れても繰り返せる。ファイアウォールとその解除",
    ),
    Promise(
        "test_deploy_offsite",
        "Copies of backups on a disk, over ssh, REST and S3: made, pruned, read back, restored; decay is found",
        "別のディスク、ssh、REST、S3 へのバックアップのコピー: 作成、削除、読み戻し、復元。劣化を検出",
    ),
    Promise(
        "test_deploy_hosts",
        "Several hosts: roles, order, firewall, nginx across web hosts, Redis over TLS, Sentinel",
        "複数のホスト: 役割、順序、ファイアウォール、Web ホスト間の nginx、TLS の Redis、Sentinel による引き継ぎ",
    ),
    Promise(
        "test_deploy_standby",
        "A standby of PostgreSQL takes over, planned and after a crash; there are never two primaries",
        "PostgreSQL のスタンバイへの引き継ぎ(計画時と障害時)。プライマリが2つになることはない",
    ),
    Promise(
        "test_deploy_pooler",
        "PgBouncer as rendered: transaction mode, few connections, one account",
        "PgBouncer: トランザクションモード、少ない接続、1つのアカウント",
    ),
    Promise(
        "test_deploy_own_application",
        "The page for them, typed on a bare machine: no request lost at reload, restart, release and rollback",
        "そのページを素のマシンで実行: 再起動やリリースで失われるリクエストなし",
    ),
    Promise(
        "test_deploy_accept",
        "mks-deploy accept: each criterion is decided by its figure, against a rendered host",
        "mks-deploy accept: 各基準を数値で判定。レンダリングしたホストに対して実行",
    ),
    Promise(
        "test_deploy_alertmanager",
        "Alertmanager takes its file; a reading of the host becomes a message that people receive",
        "Alertmanager が設定を受け付ける。ホストの測定値から担当者への通知まで",
    ),
    Promise(
        "test_deploy_capacity",
        "mks-deploy capacity: sizes as computed by hand; more users never need less",
        "mks-deploy capacity: 手計算と一致。利用者が増えて必要量が減ることはない",
    ),
    Promise(
        "test_deploy_going_back",
        "Back to the former schema, only with a backup, and to the former settings",
        "以前のスキーマへ(バックアップがあるときのみ)、以前の設定へ戻す",
    ),
    Promise(
        "test_deploy_logs",
        "Logs sent elsewhere: what each collector documents; nothing lost over an outage, a restart and a rotation",
        "ログの転送: 各収集サーバーの仕様どおり。障害、再起動、ローテーションで失われるログなし",
    ),
    Promise(
        "test_deploy_masking",
        "mks-deploy mask: declared columns are masked; a doubt stops it and changes nothing",
        "mks-deploy mask: 宣言した列をマスク。疑わしければ中止し、何も変更しない",
    ),
    Promise(
        "test_deploy_production_check",
        "The rendered deployment has no findings in the production check; one careless option has",
        "レンダリングした構成は本番チェックの指摘なし。不注意な設定1つは指摘される",
    ),
    Promise(
        "test_deploy_encrypted_secrets",
        "Secrets encrypted for one machine: another kind of key, a copied disk, and the way back to plain files",
        "1台のマシンのために暗号化した秘密情報: 鍵の種類の変更、複製したディスク、平文のファイルへの復帰",
    ),
    Promise(
        "test_deploy_sealed_secrets",
        "Secrets encrypted by age: each recipient can open them, nobody else; a changed file is refused as a whole",
        "age で暗号化した秘密情報: 各受信者だけが開ける。改変されたファイルは全体を拒否",
    ),
    Promise(
        "test_deploy_staging",
        "Staging: mail is kept and goes nowhere; no alert reaches people",
        "ステージング: メールは保存されるだけで送信されず、アラートは担当者に届かない",
    ),
)

LOADS = (
    Promise(
        "bare",
        "A bare Debian to a site with PostgreSQL, Redis and Celery by that page alone: at most 10 minutes",
        "素の Debian から、そのページだけで PostgreSQL、Redis、Celery を使うサイトまで: 10分以内",
    ),
    Promise(
        "readers",
        "1000 signed-in readers over TLS, 1 to 3 s between requests, 10,000 articles: no error, p95 ≤ 100 ms",
        "サインイン済みの読者 1000 人(TLS、要求の間隔 1〜3 秒、記事 1 万件): エラーなし、p95 ≤ 100 ms",
    ),
    Promise("closed", "50 readers without a pause: no error", "間隔を置かない読者 50 人: エラーなし"),
    Promise(
        "sixteen",
        "16 readers of the list without a pause, beside a page without work from the same servers: no error",
        "一覧を間隔を置かずに読む 16 人(同じサーバーの、何もしないページと並べて): エラーなし",
    ),
    Promise(
        "apart",
        "1000 readers over TLS from another network namespace, 5 s between requests: no error, and p95 ≤ 100 ms "
        "wherever a page without work stays below 50 ms",
        "別のネットワーク名前空間から TLS で読む 1000 人(要求の間隔 5 秒): エラーなし。"
        "何もしないページが 50 ms 未満なら p95 ≤ 100 ms",
    ),
    Promise(
        "static",
        "Static files from nginx, beside the application's own answer; 304 and gzip",
        "nginx の静的ファイル(アプリケーション自身の応答と並べて)。304 と gzip",
    ),
    Promise(
        "reload",
        "nginx -s reload ten times under new TLS connections: no request fails",
        "新しい TLS 接続が続く中で nginx -s reload を10回: 失敗するリクエストなし",
    ),
    Promise(
        "hangup",
        "SIGHUP of gunicorn ten times under new TLS connections: no request fails",
        "新しい TLS 接続が続く中で gunicorn に SIGHUP を10回: 失敗するリクエストなし",
    ),
    Promise(
        "whole",
        "All of this in one run of make verify-deploy",
        "以上のすべてを make verify-deploy の1回の実行で",
    ),
)

_ABOUT_EN = """\
Written by `make verify-deploy`, which tries all of it on one machine; the last row says how long that took. Counts
do not depend on the machine; figures of load do, and on what else it does. `ARGS=--no-load` leaves the load out and
its figures as they were, `ARGS=--only-load` measures it alone. Each row names the day and the commit of its run."""
_ABOUT_JA = """\
`make verify-deploy` が1台のマシンですべてを試して書きます。かかった時間は最後の行にあります。
件数はマシンに左右されませんが、負荷の数値はマシンと、そのときほかに何が動いているかに左右されます。
`ARGS=--no-load` は負荷を省いて数値をそのまま残し、`ARGS=--only-load` は負荷だけを測ります。
各行に、測った日とコミットを示します。"""
_NOT_TRIED_EN = """\
Not tried here: limits of memory and of tasks and restrictions of addresses, which need the controllers of the
kernel; pulling images, which needs a registry; applying the manifests, which needs a cluster. systemd runs in
namespaces, on a copy of this machine that was set up as [Deploy to a server](../how-to/deploy.md) says; a bare
Debian fetches its packages, and gets no certificate. pebble issues all others."""
_NOT_TRIED_JA = """\
ここで試していないもの: メモリーとタスク数の上限とアドレスの制限(カーネルのコントローラーが必要)、イメージの取得
(レジストリが必要)、マニフェストの適用(クラスターが必要)。systemd は名前空間の中で、
[サーバーにデプロイする](../how-to/deploy.md)の手順で準備したこのマシンの複製の上で動きます。
素の Debian では、パッケージの取得から始め、証明書は発行しません。それ以外の証明書は pebble が発行します。"""
_TEXTS = {
    "en": (
        "What the deployment kit promises",
        _ABOUT_EN,
        "promise",
        "figure",
        "run",
        "not measured yet",
        _NOT_TRIED_EN,
    ),
    "ja": ("デプロイキットの約束", _ABOUT_JA, "約束", "数値", "実行", "未測定", _NOT_TRIED_JA),
}
_LINE = re.compile(r"^\| (.+) \| ([✓✗?]) \| ([^|]*) \|(?: ([^|]*) \|)?$", re.MULTILINE)


def rows_of(text: str) -> dict[str, Row]:
    """Return the rows of an English page by key."""
    keys = {promise.en: promise.key for promise in (*TESTED, *LOADS)}
    return {
        keys[said]: Row(keys[said], mark == "✓", figure, run)
        for said, mark, figure, run in _LINE.findall(text)
        if said in keys and mark != "?"
    }


def merged(rows: Iterable[Row], before: str) -> dict[str, Row]:
    """Return the new rows, and the existing rows of everything else."""
    return {**rows_of(before), **{row.key: row for row in rows}}


def page(rows: dict[str, Row], language: str) -> str:
    """The page of the documentation."""
    title, about, promise, figure, run, unknown, not_tried = _TEXTS[language]
    lines = [f"# {title}", "", about, "", f"| {promise} | | {figure} | {run} |", "|---|---|---|---|"]
    for each in (*TESTED, *LOADS):
        row = rows.get(each.key)
        found = Row(each.key, False, unknown) if row is None else row
        mark = "?" if row is None else "✓" if found.holds else "✗"
        lines.append(f"| {getattr(each, language)} | {mark} | {found.figure} | {found.run} |")
    return "\n".join([*lines, "", not_tried]) + "\n"
