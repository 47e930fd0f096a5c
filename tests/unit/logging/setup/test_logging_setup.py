"""Set-up of the whole process: where records go, what is replaced, what is refused."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging import (
    BoundedQueueHandler,
    JsonFormatter,
    ProcessSafeRotatingFileHandler,
    RedactionFilter,
    ReopeningFileHandler,
    Rotation,
    UncaughtExceptions,
    bound,
    dict_config,
    remove_logging,
    setup_logging,
)


def fail(error: Exception) -> None:
    raise error


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tree of loggers of our own: the real root belongs to pytest."""
    root = logging.RootLogger(logging.WARNING)
    manager = logging.Manager(root)
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(logging.Logger, "root", root)
    monkeypatch.setattr(logging.Logger, "manager", manager)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.delenv("MKS_ENV", raising=False)
    yield
    remove_logging()


def installed() -> list[logging.Handler]:
    """Handlers of the root, without those by which pytest watches."""
    handlers = logging.getLogger().handlers
    return [handler for handler in handlers if not type(handler).__module__.startswith("_pytest")]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_records_below_error_go_to_stdout_and_the_others_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = setup_logging("app", environment="test")
    logger.debug("hidden")
    logger.info("fine")
    logger.error("broken")
    out, err = capsys.readouterr()
    assert [(entry["message"], entry["environment"]) for entry in lines(out)] == [("fine", "test")]
    assert [entry["message"] for entry in lines(err)] == ["broken"]


def test_libraries_come_out_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("app")
    logging.getLogger("sqlalchemy.engine").warning("password=%s", "hunter2")
    assert lines(capsys.readouterr().out)[0]["message"] == "password=[REDACTED]"


def test_narrowed_to_loggers_the_root_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    logger = setup_logging("app", loggers=["app"])
    logger.info("ours")
    logging.getLogger("other").info("theirs")
    assert logging.getLogger().handlers == before
    assert [entry["message"] for entry in lines(capsys.readouterr().out)] == ["ours"]


def test_calling_twice_writes_once_and_closes_what_was_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    setup_logging("app", log_file=tmp_path / "a.log")
    first = installed()
    setup_logging("app", log_file=tmp_path / "a.log").info("once")
    assert len(lines(capsys.readouterr().out)) == len(lines((tmp_path / "a.log").read_text())) == 1
    assert not {*first} & {*installed()}
    assert all(handler not in logging._handlerList for handler in first)  # type: ignore[attr-defined]


def test_handlers_given_again_stay_open(tmp_path: Path) -> None:
    handler = ReopeningFileHandler(tmp_path / "mine.log")
    setup_logging("app", handlers=[handler])
    setup_logging("app", handlers=[handler]).warning("twice set up")
    assert isinstance(handler.formatter, JsonFormatter)
    assert [entry["message"] for entry in lines((tmp_path / "mine.log").read_text())] == ["twice set up"]


def test_a_bare_file_name_and_a_missing_folder_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    setup_logging("app", log_file="bare.log").info("x")
    setup_logging("app", log_file="deep/er/app.log").info("y")
    assert (tmp_path / "bare.log").stat().st_mode & 0o777 == 0o640
    assert lines((tmp_path / "deep/er/app.log").read_text())[0]["message"] == "y"


def test_a_file_that_cannot_be_opened_is_reported_once_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    logger = setup_logging("app", log_file=tmp_path / "file" / "app.log")
    for number in range(5):
        logger.info("line %d", number)
    out, err = capsys.readouterr()
    assert len(lines(out)) == 5
    assert len(err.splitlines()) == 1
    assert "app.log" in err


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"level": "LOUD"}, "level"),
        ({"level": True}, "level"),
        ({"schema": "xml"}, "schema"),
        ({"encoder": "yaml"}, "encoder"),
        ({"rotation": Rotation()}, "rotation"),
        ({"log_file": "a.log", "rotation": Rotation(), "reopen": True}, "rotation"),
        ({"log_file": "a.log", "rotation": 10}, "rotation"),
        ({"log_file": "a.log", "rotation": (1, 2)}, "rotation"),
        ({"loggers": []}, "loggers"),
        ({"max_record_bytes": 10}, "max_record_bytes"),
    ],
)
def test_impossible_set_ups_are_refused_and_change_nothing(options: dict[str, Any], parameter: str) -> None:
    before = list(logging.getLogger().handlers)
    with pytest.raises(ConfigurationError) as caught:
        setup_logging("app", **options)
    assert caught.value.parameter == parameter
    assert logging.getLogger().handlers == before


def test_two_ways_of_rotation_for_one_file_are_refused(tmp_path: Path) -> None:
    handler = ReopeningFileHandler(tmp_path / "a.log")
    for rotation, parameter in ((Rotation(), "rotation"), (None, "handlers")):
        with pytest.raises(ConfigurationError, match="same file") as caught:
            setup_logging("app", log_file=tmp_path / "a.log", rotation=rotation, handlers=[handler])
        assert caught.value.parameter == parameter
    handler.close()


def test_the_environment_is_read_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKS_ENV", "staging")
    logger = setup_logging("app")
    monkeypatch.setenv("MKS_ENV", "changed")
    logger.info("x")
    assert lines(capsys.readouterr().out)[0]["environment"] == "staging"


def test_with_the_queue_context_and_exception_survive(capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logging("app", queue=True)
    with bound(request_id="r1"):
        try:
            fail(ValueError("password=hunter2"))
        except ValueError:
            logger.exception("failed")
    logging.getLogger().handlers[0].flush()
    (entry,) = lines(capsys.readouterr().err)
    assert (entry["request_id"], entry["exception"]["type"]) == ("r1", "ValueError")
    assert entry["exception"]["message"] == "password=[REDACTED]"


# --- dictConfig and fileConfig ---------------------------------------------------------------


def test_dict_config_builds_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    logging.config.dictConfig(
        dict_config("app", log_file=tmp_path / "a.log", rotation=Rotation(4096, 2), environment="t")
    )
    logging.getLogger("app").info("token=%s", "hunter2")
    logging.getLogger("app").error("bad")
    out, err = capsys.readouterr()
    assert [entry["message"] for entry in lines(out)] == ["token=[REDACTED]"]
    assert [(entry["message"], entry["environment"]) for entry in lines(err)] == [("bad", "t")]
    assert len(lines((tmp_path / "a.log").read_text())) == 2
    for handler in list(logging.getLogger().handlers):
        logging.getLogger().removeHandler(handler)
        handler.close()


def test_dict_config_narrowed_has_no_root() -> None:
    config = dict_config("app", loggers=["app"])
    assert "root" not in config
    assert config["loggers"]["app"]["propagate"] is False


def test_ext_and_class_forms_work_in_dict_config(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "ours": {"()": "ext://mks_hardening.logging.JsonFormatter", "schema": "ecs"},
                "plain": {
                    "class": "mks_hardening.logging.JsonFormatter",
                    "format": "%(process)d %(message)s",
                },
            },
            "filters": {
                "clean": {"()": "mks_hardening.logging.RedactionFilter"},
                "context": {"()": "mks_hardening.logging.ContextFilter"},
            },
            "handlers": {
                "one": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "ours",
                    "filters": ["clean", "context"],
                },
                "two": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "plain"},
            },
            "loggers": {"ext": {"handlers": ["one", "two"], "level": "INFO", "propagate": False}},
        }
    )
    logging.getLogger("ext").info("password=hunter2")
    out, err = capsys.readouterr()
    assert lines(out)[0]["log.level"] == "info"
    assert isinstance(lines(err)[0]["process"], int)
    assert "hunter2" not in out + err


def test_file_config_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logging.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=out\n[formatters]\nkeys=json\n"
        "[logger_root]\nlevel=INFO\nhandlers=out\n"
        "[handler_out]\nclass=StreamHandler\nargs=(sys.stdout,)\nformatter=json\n"
        "[formatter_json]\nclass=mks_hardening.logging.JsonFormatter\nformat=%(asctime)s %(message)s\n"
        "datefmt=%H:%M\n"
    )
    logging.config.fileConfig(tmp_path / "logging.ini", disable_existing_loggers=False)
    logging.getLogger().info("from file")
    (entry,) = lines(capsys.readouterr().out)
    assert entry["message"] == "from file"
    assert len(entry["asctime"]) == 5


# --- uncaught exceptions ---------------------------------------------------------------------


def test_uncaught_exceptions_of_threads_are_records(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("app")

    def fail() -> None:
        raise ValueError("token=hunter2")

    thread = threading.Thread(target=fail, name="worker-1")
    thread.start()
    thread.join()
    (entry,) = lines(capsys.readouterr().err)
    assert (entry["level"], entry["exception"]["message"]) == ("CRITICAL", "token=[REDACTED]")
    assert "worker-1" in entry["message"]


def test_uncaught_exceptions_of_the_process_are_records_and_interrupts_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: seen.append(kind.__name__))
    setup_logging("app")
    sys.excepthook(ValueError, ValueError("x"), None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    entries = lines(capsys.readouterr().err)
    assert [entry["exception"]["type"] for entry in entries] == ["ValueError"]
    assert seen == ["ValueError", "KeyboardInterrupt"]


def test_the_hooks_are_chained_once_and_removable(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (sys.excepthook, threading.excepthook)
    setup_logging("app")
    setup_logging("app")
    remove_logging()
    assert (sys.excepthook, threading.excepthook) == before
    setup_logging("app", uncaught=False)
    assert (sys.excepthook, threading.excepthook) == before
    hooks = UncaughtExceptions(logging.getLogger("x"))
    others = lambda kind, error, trace: None  # noqa: E731
    monkeypatch.setattr(sys, "excepthook", others)
    hooks.remove()
    assert sys.excepthook is others
    assert threading.excepthook == before[1]


def test_what_a_set_up_consists_of(tmp_path: Path) -> None:
    setup_logging("app", log_file=tmp_path / "a.log", rotation=Rotation(4096, 2), queue=True)
    (queue,) = installed()
    assert isinstance(queue, BoundedQueueHandler)
    assert isinstance(queue.handlers[-1], ProcessSafeRotatingFileHandler)
    assert logging.getLogger().level == logging.INFO


@pytest.mark.parametrize("name", ["token=hunter2", "password=x", "a" * 5_000])
def test_the_filter_cleans_names_as_well_as_values(name: str) -> None:
    record = logging.LogRecord("app", 20, "", 1, "hello", None, None)
    record.__dict__[name] = "value"
    assert RedactionFilter().filter(record)
    assert "hunter2" not in repr(record.__dict__)
    assert "value" in record.__dict__.values()


def test_the_log_of_pytest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    setup_logging("app", environment="t").warning("seen")
    assert [record.getMessage() for record in caplog.records] == ["seen"]


@pytest.mark.parametrize("call", [setup_logging, dict_config])
def test_an_unknown_level_is_told_with_those_that_are_known(call: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"level must be the name of a level \(.*WARNING.*\) or its number"
    ):
        call("app", level="LOUD")


@pytest.mark.parametrize(
    ("options", "parameter"), [({"max_bytes": 10}, "max_bytes"), ({"backups": 0}, "backups")]
)
def test_an_impossible_rotation_cannot_be_made(options: dict[str, int], parameter: str) -> None:
    with pytest.raises(ConfigurationError, match=parameter):
        Rotation(**options)


class _SomebodysOwn(logging.StreamHandler):  # type: ignore[type-arg]  # the stream does not matter
    pass


def test_what_servers_print_on_the_console_goes_through_the_root(capsys: pytest.CaptureFixture[str]) -> None:
    server, own = logging.getLogger("uvicorn.access"), logging.getLogger("own")
    server.addHandler(logging.StreamHandler(sys.stderr))
    server.propagate = False
    own.addHandler(kept := _SomebodysOwn(sys.stderr))
    setup_logging("app", environment="t")
    server.info("GET / token=hunter2")
    assert [line["message"] for line in lines(capsys.readouterr().out)] == ["GET / token=[REDACTED]"]
    assert own.handlers == [kept]


def test_a_server_that_is_set_up_later_does_not_print_either(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("app", environment="t", queue=True)
    server = logging.getLogger("uvicorn.error")
    plain = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
    for _ in range(2):  # a reload does it again
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"plain": plain},
                "loggers": {"uvicorn": {"handlers": ["plain"], "level": "INFO", "propagate": False}},
            }
        )
        server.warning("token=hunter2")
    remove_logging()
    captured = capsys.readouterr()
    assert [line["message"] for line in lines(captured.out)] == ["token=[REDACTED]"] * 2
    assert captured.err == ""
    assert server.filters == []


@pytest.mark.parametrize(("name", "cut_off"), [("hypercorn.error", False), ("hypercorn.access", True)])
def test_hypercorn_prints_nothing_beside_us(
    name: str, cut_off: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging("app", environment="t")
    server = logging.getLogger(name)
    server.handlers = [
        logging.StreamHandler(sys.stderr)
    ]  # once the application is loaded, and without dictConfig
    server.propagate = not cut_off
    server.warning("token=hunter2")
    captured = capsys.readouterr()
    assert [line["message"] for line in lines(captured.out)] == ["token=[REDACTED]"]
    assert captured.err == ""


def test_who_sets_up_everything_anew_keeps_the_handlers_of_servers() -> None:
    setup_logging("app", environment="t")
    ours, root = logging.getLogger().handlers[:], logging.getLogger()
    server, theirs = logging.getLogger("uvicorn"), logging.StreamHandler(sys.stderr)
    for handler in ours:
        root.removeHandler(handler)
    server.addHandler(theirs)
    try:
        logging.getLogger("uvicorn.error").warning("as they like it")
        assert server.handlers == [theirs]
    finally:
        server.removeHandler(theirs)
        for handler in ours:  # for remove_logging, and for the handlers of pytest among them
            root.addHandler(handler)
        remove_logging()


def test_a_dictionary_takes_over_the_loggers_of_servers(capsys: pytest.CaptureFixture[str]) -> None:
    server = logging.getLogger("gunicorn.access")
    server.addHandler(logging.StreamHandler(sys.stderr))
    server.propagate = False
    logging.config.dictConfig(dict_config("app", environment="t"))
    server.info("GET /")
    captured = capsys.readouterr()
    assert [line["logger"] for line in lines(captured.out)] == ["gunicorn.access"]
    assert captured.err == ""


def _by_file(folder: Path) -> None:
    file = folder / "alembic.ini"
    file.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nlevel=WARNING\nhandlers=\n"
    )
    logging.config.fileConfig(file)


def _by_dictionary(_: Path) -> None:
    logging.config.dictConfig({"version": 1})


@pytest.mark.parametrize("configure", [_by_file, _by_dictionary])
@pytest.mark.parametrize("narrowed", [False, True])
def test_loggers_that_were_disabled_before_are_enabled(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, configure: Any, narrowed: bool
) -> None:
    loggers = [logging.getLogger(name) for name in ("app", "app.views")]
    other = logging.getLogger("elsewhere")
    configure(tmp_path)
    assert all(logger.disabled for logger in (*loggers, other))
    assert setup_logging("app", loggers=["app"] if narrowed else None) is loggers[0]
    for logger in (*loggers, other):
        logger.info("hello")
    shown = [line["logger"] for line in lines(capsys.readouterr().out)]
    assert shown == ["app", "app.views"] + ([] if narrowed else ["elsewhere"])


def test_a_closed_handler_is_refused() -> None:
    handler = BoundedQueueHandler([logging.NullHandler()])
    setup_logging("app", handlers=[handler])
    remove_logging()
    with pytest.raises(ConfigurationError, match="BoundedQueueHandler that is closed") as caught:
        setup_logging("app", handlers=[handler])
    assert caught.value.parameter == "handlers"
    stream = logging.StreamHandler()  # goes on when it is closed
    stream.close()
    setup_logging("app", handlers=[stream])


def test_an_unknown_level_is_repeated() -> None:
    with pytest.raises(ConfigurationError, match="not 'LOUD'"):
        setup_logging("app", level="LOUD")
