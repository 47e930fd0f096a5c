"""Django's cache: pages that are the same for all, model instances, and the methods of django-redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.management import call_command
from django.db import models, transaction
from django.db.models import Count
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.template import engines
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.cache import cache_page
from django.views.decorators.vary import vary_on_cookie, vary_on_headers

from contrib_django_site import MIDDLEWARE, Site, project
from mks_hardening.cache import MemoryCache, cached
from mks_hardening.contrib.django_app import invalidate_on_commit
from mks_hardening.contrib.django_app.cache import HardenedCache
from mks_hardening.exceptions import ConfigurationError, EncodeError

Group, Permission, ContentType = (
    apps.get_model(label) for label in ("auth.Group", "auth.Permission", "contenttypes.ContentType")
)
BACKEND = "mks_hardening.contrib.django_app.cache.HardenedCache"


@pytest.fixture(autouse=True, scope="module")
def database() -> None:
    call_command("migrate", verbosity=0)


@pytest.fixture
def site() -> Iterator[Site]:
    with project(CACHES={"default": {"BACKEND": BACKEND, "KEY_PREFIX": "t"}}) as found:
        caches["default"].clear()
        yield found


@pytest.fixture
def cache(site: Site) -> Any:
    return caches["default"]


class Page:
    """A view behind ``cache_page`` that counts how often it makes its page."""

    def __init__(self, make: Callable[[Any, int], Any]) -> None:
        self.made = 0
        self._make = make
        self.view = cache_page(60)(self._view)

    def _view(self, request: Any) -> Any:
        self.made += 1
        return self._make(request, self.made)


def bodies(site: Site, page: Page, *requests: dict[str, Any]) -> list[bytes]:
    return [site.visit(page.view, **{"cookies": {}, **how}).body for how in requests or ({}, {})]


# --- pages


def test_a_page_is_made_once(site: Site) -> None:
    page = Page(lambda _request, made: HttpResponse(f"page {made}", headers={"X-Made": str(made)}))
    first, second = (site.visit(page.view, cookies={}) for _ in range(2))
    assert (first.body, second.body, page.made) == (b"page 1", b"page 1", 1)
    assert (second.status, second.header("X-Made")) == (200, "1")
    assert second.header("Content-Type") == first.header("Content-Type")
    assert bodies(site, page, {"query": "q=1"}) == [b"page 2"]


def test_a_template_response_is_rendered_once(site: Site) -> None:
    template = engines["django"].from_string("made {{ made }} <b>技術</b>")
    page = Page(lambda request, made: TemplateResponse(request, template, {"made": made}))
    assert bodies(site, page) == ["made 1 <b>技術</b>".encode()] * 2
    assert page.made == 1


def test_json_and_its_type_come_back(site: Site) -> None:
    page = Page(lambda _request, made: JsonResponse({"made": made}))
    site.visit(page.view, cookies={})
    again = site.visit(page.view, cookies={})
    assert (again.body, again.header("Content-Type"), page.made) == (b'{"made": 1}', "application/json", 1)


def test_visitors_with_a_session_get_pages_that_do_not_read_it(site: Site) -> None:
    site.visit(lambda request: request.session.update({"x": 1}))
    page = Page(lambda _request, made: HttpResponse(f"page {made}"))
    mine = {"cookies": dict(site.cookies)}
    assert bodies(site, page, mine, {}, mine, {"cookies": {"csrftoken": "t"}}) == [b"page 1"] * 4


def _reads_nonce(request: Any, made: int) -> HttpResponse:
    return HttpResponse(f"{made} {request.environ.get('mks_hardening.csp_nonce', '')}")


@pytest.mark.parametrize(
    "make",
    [
        lambda request, made: HttpResponse(f"{made} {request.session.get('x')}"),
        lambda request, made: HttpResponse(f"{made} {request.user.is_authenticated}"),
        lambda request, made: request.session.update({"x": made}) or HttpResponse(str(made)),
        lambda request, made: HttpResponse(f"{made} {get_token(request)}"),
        lambda request, made: HttpResponse(str(made), headers={"Cache-Control": "private"}),
        lambda request, made: HttpResponse(str(made), headers={"Cache-Control": "no-store"}),
        lambda request, made: HttpResponse(str(made), headers={"Vary": "*"}),
        lambda request, made: HttpResponse(str(made), status=404),
        lambda request, made: StreamingHttpResponse([str(made).encode()]),
    ],
    ids=["session", "user", "changed", "token", "private", "no-store", "vary", "status", "stream"],
)
def test_a_page_for_one_visitor_is_not_stored(site: Site, make: Any) -> None:
    page = Page(make)
    first, second = bodies(site, page)
    assert (first[:1], second[:1], page.made) == (b"1", b"2", 2)


def test_a_page_that_sets_a_cookie_is_not_stored(site: Site) -> None:
    def make(_request: Any, made: int) -> HttpResponse:
        response = HttpResponse(str(made))
        response.set_cookie("basket", str(made))
        return response

    page = Page(make)
    assert bodies(site, page) == [b"1", b"2"]


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer x"}, {"Cookie": "login=alice"}, {"X-Api-Key": "x"}],
)
def test_requests_of_users_neither_fill_the_cache_nor_read_it(site: Site, headers: dict[str, str]) -> None:
    page = Page(lambda _request, made: HttpResponse(f"page {made}"))
    of_user = {"headers": headers}
    first, shared, third, again = bodies(site, page, of_user, {}, of_user, {})
    assert (first, shared, third) == (b"page 1", b"page 2", b"page 3")
    # After a page that depends on Authorization, Django 5.2 looks for the shared one under another key.
    assert again in ((b"page 2", b"page 4") if "Authorization" in headers else (b"page 2",))
    assert caches["default"].inner.stats().bypasses >= 2


def test_a_page_that_varies_by_cookie_is_stored_for_each(site: Site) -> None:
    page = Page(vary_on_cookie(lambda request, made: HttpResponse(f"{request.COOKIES.get('theme')} {made}")))
    dark, light = {"cookies": {"theme": "dark"}}, {"cookies": {"theme": "light"}}
    assert bodies(site, page, dark, light, dark, light) == [b"dark 1", b"light 2", b"dark 1", b"light 2"]


def test_a_page_varies_by_the_fields_it_names(site: Site) -> None:
    page = Page(vary_on_headers("Accept")(lambda _request, made: HttpResponse(str(made))))
    html, plain = ({"headers": {"Accept": kind}} for kind in ("text/html", "text/plain"))
    assert bodies(site, page, html, plain, html) == [b"1", b"2", b"1"]


def test_a_page_outside_the_middleware_is_not_stored(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, cache: Any
) -> None:
    monkeypatch.setattr(HardenedCache, "_has_warned", False)
    for _ in range(2):
        cache.set("page", HttpResponse("for one visitor"))
        assert not cache.add("page", HttpResponse("for one visitor"))
        assert cache.set_many({"page": HttpResponse("for one visitor"), "other": 1}) == ["page"]
    assert (cache.get("page"), cache.get("other")) == (None, 1)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "HardeningMiddleware" in warning
    assert "ResponseCacheMiddleware" in warning


def test_the_whole_site_by_the_middleware_of_django_is_not_stored() -> None:
    outside = ["django.middleware.cache.UpdateCacheMiddleware", *MIDDLEWARE]
    middleware = [*outside, "django.middleware.cache.FetchFromCacheMiddleware"]
    with project(CACHES={"default": {"BACKEND": BACKEND}}, MIDDLEWARE=middleware) as site:
        caches["default"].clear()
        made: list[int] = []

        def view(_request: Any) -> HttpResponse:
            made.append(1)
            return HttpResponse(str(len(made)))

        assert [site.visit(view, cookies={}).body for _ in range(2)] == [b"1", b"2"]


def test_fragments_of_templates_are_cached(site: Site) -> None:
    template = engines["django"].from_string(
        "{% load cache %}{% cache 60 part %}<b>{{ n }}</b>{% endcache %}"
    )
    assert [template.render({"n": n}) for n in (1, 2)] == ["<b>1</b>", "<b>1</b>"]


# --- values


@pytest.fixture
def permission() -> Iterator[Any]:
    made = Permission.objects.create(
        name="may", codename="may", content_type=ContentType.objects.get_for_model(Group)
    )
    yield made
    made.delete()


def test_safe_strings_stay_safe(cache: Any) -> None:
    cache.set("a", {"html": [mark_safe("<b>"), "<i>"]})
    html = cache.get("a")["html"]
    assert (html, [type(text) for text in html]) == (["<b>", "<i>"], [SafeString, str])


def test_a_model_instance_comes_back(cache: Any, permission: Any, django_queries: list[str]) -> None:
    cache.set("a", permission)
    django_queries.clear()
    again = cache.get("a")
    assert (again, again.name, again.content_type_id) == (permission, "may", permission.content_type_id)
    assert (again._state.db, again._state.adding) == ("default", False)
    assert django_queries == []
    again.name = "changed"
    again.save()
    assert Permission.objects.get(pk=permission.pk).name == "changed"


def test_query_sets_are_stored_as_their_results(
    cache: Any, permission: Any, django_queries: list[str]
) -> None:
    rows = Permission.objects.filter(codename="may")
    cache.set("objects", rows)
    cache.set("dicts", {"rows": rows.values("codename")})
    cache.set("tuples", rows.values_list("codename", "name"))
    cache.set("related", rows.select_related("content_type"))
    cache.set("counted", list(rows.annotate(groups=Count("group"))))
    cache.set("part", rows.only("codename"))
    django_queries.clear()
    assert cache.get("objects") == [permission]
    assert cache.get("dicts") == {"rows": [{"codename": "may"}]}
    assert cache.get("tuples") == [("may", "may")]
    assert cache.get("related")[0].content_type.model == "group"
    assert cache.get("counted")[0].groups == 0
    assert django_queries == []
    (part,) = cache.get("part")
    assert (part.codename, part.get_deferred_fields()) == ("may", {"name", "content_type_id"})
    assert (part.name, len(django_queries)) == ("may", 1)
    assert cache.get_many(["objects", "none"]) == {"objects": [permission]}
    assert cache.set_many({"a": rows, "b": 1}) == []
    assert cache.get_many(["a", "b"]) == {"a": [permission], "b": 1}
    assert (cache.add("c", [permission]), cache.get("c")) == (True, [permission])
    assert cache.get_or_set("d", lambda: {permission}) == {permission}


def test_passwords_in_memory_are_not_stored(cache: Any) -> None:
    user = get_user_model()(username="alice")
    user.set_password("hunter2 in clear text")
    cache.set("u", user)
    assert "hunter2" not in repr(vars(cache.get("u")))
    assert cache.get("u")._state.adding


def test_an_instance_of_another_version_of_its_model_is_a_miss(
    cache: Any, permission: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.set("a", permission)
    values = "mks_hardening.contrib.django_app._cache_values"
    monkeypatch.setattr(f"{values}._model_version", lambda _model: "another")
    assert (cache.get("a", "absent"), cache.get_many(["a"])) == ("absent", {})
    monkeypatch.undo()
    monkeypatch.setattr(f"{values}.model_of", lambda label: apps.get_model("left", label))
    assert cache.get("a", "absent") == "absent"


@pytest.mark.parametrize("text", ["value", "model", "response", "safe", "x", 7])
def test_a_tuple_that_looks_like_a_packed_value_comes_back(cache: Any, text: Any) -> None:
    planted = ("\0mks_hardening.django", text, "shop.article", [1])
    for value in (planted, [planted], {"a": (planted,)}, (planted, frozenset({1}), {2})):
        cache.set("a", value)
        assert cache.get("a") == value
        cache.set("a", [value, mark_safe("x")])
        assert cache.get("a") == [value, "x"]


def test_other_objects_are_refused(cache: Any) -> None:
    for value in (object(), [object()], {"a": mark_safe("x"), "b": object()}):
        with pytest.raises(EncodeError):
            cache.set("a", value)
        with pytest.raises(EncodeError):
            cache.add("a", value)
        with pytest.raises(EncodeError):
            cache.set_many({"a": value})
    assert cache.get("a") is None


# --- keys, expiry, numbers, locks


def test_keys_patterns_and_expiry(cache: Any) -> None:
    cache.set_many({"a1": 1, "a2": 2, "b1": 3, "we*rd[x]?\\": 4}, timeout=100)
    cache.set("a1", 1, version=2)
    assert sorted(cache.keys("a*")) == ["a1", "a2"]
    assert sorted(cache.iter_keys()) == ["a1", "a2", "b1", "we*rd[x]?\\"]
    assert cache.keys("we\\*rd*") == ["we*rd[x]?\\"]
    assert cache.keys(version=2) == ["a1"]
    assert (89 <= cache.ttl("a1") <= 100, cache.ttl("none")) == (True, 0)
    assert cache.touch("a1", 1000)
    assert 899 <= cache.ttl("a1") <= 1000
    assert (cache.touch("a1", 0), cache.get("a1"), cache.touch("a1")) == (True, None, False)
    assert (cache.delete_pattern("a*"), cache.keys(), cache.get("a1", version=2)) == (
        1,
        cache.keys("[bw]*"),
        1,
    )
    assert cache.delete_pattern("*", version=2) == 1


def test_a_prefix_is_no_pattern() -> None:
    caches_of = {
        name: {"BACKEND": BACKEND, "KEY_PREFIX": prefix} for name, prefix in (("default", "t*"), ("o", "tx"))
    }
    with project(CACHES=caches_of):
        caches["default"].clear()
        caches["default"].set("a", 1)
        caches["o"].set("a", 2)
        assert (caches["default"].delete_pattern("*"), caches["o"].get("a")) == (1, 2)


def test_patterns_need_a_key_function_that_only_adds_a_prefix() -> None:
    backward = {"BACKEND": BACKEND, "KEY_FUNCTION": lambda key, prefix, version: f"{key}:{prefix}:{version}"}
    with project(CACHES={"default": backward}):
        for call in (caches["default"].keys, lambda: caches["default"].delete_pattern("*")):
            with pytest.raises(ConfigurationError, match="KEY_FUNCTION"):
                call()


def in_threads(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_no_increment_is_lost_and_the_expiry_stays(cache: Any) -> None:
    cache.set("n", 0, timeout=100)
    in_threads(4, lambda: [cache.incr("n") for _ in range(25)])
    assert (cache.get("n"), cache.decr("n", 50)) == (100, 50)
    assert 0 < cache.ttl("n") <= 100
    with pytest.raises(ValueError, match="none"):
        cache.incr("none")


def test_one_caller_adds(cache: Any) -> None:
    added: list[bool] = []
    in_threads(8, lambda: added.append(cache.add("k", 1)))
    assert sorted(added) == [False] * 7 + [True]


def test_a_lock_has_one_holder(cache: Any) -> None:
    lock = cache.lock("job", timeout=60)
    with lock:
        assert not cache.lock("job").acquire(blocking=False)
        with (
            pytest.raises(TimeoutError, match=r"0\.02"),
            cache.lock("job", sleep=0.01, blocking_timeout=0.02),
        ):
            pass
        assert cache.lock("job", version=2).acquire()
        with pytest.raises(RuntimeError, match="held already"):
            lock.acquire()
    with cache.lock("job"):
        pass
    assert not lock.release()


def test_a_lock_that_ended_does_not_release_that_of_another(
    cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = cache.lock("job"), cache.lock("job")
    with first:
        cache.clear()
        assert second.acquire()
    assert "a lock ended after 30 seconds, before its holder released it" in caplog.text
    assert second.release()


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": None}, {"sleep": 0}, {"blocking_timeout": -1}]
)
def test_a_lock_needs_durations(cache: Any, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=name):
        cache.lock("job", **options)


# --- transactions


class RollbackError(Exception):
    pass


@pytest.fixture
def counted() -> Any:
    calls: list[int] = []
    inner = MemoryCache()

    @cached(cache=inner, key_prefix="counted", tags=["groups"])
    def count() -> int:
        calls.append(1)
        return Group.objects.count()

    count.calls = calls
    count.cache = inner
    Group.objects.all().delete()
    assert count() == 0
    yield count
    Group.objects.all().delete()


def test_an_invalidation_follows_the_commit(counted: Any) -> None:
    with transaction.atomic():
        invalidate_on_commit(cache=counted.cache, tags=["groups"])
        Group.objects.create(name="a")
        assert (counted(), counted()) == (1, 1)  # what the transaction sees, and stores nothing
        with transaction.atomic():
            Group.objects.create(name="b")
            invalidate_on_commit(cache=counted.cache, tags=["groups"])
            assert counted() == 2
    made = len(counted.calls)
    assert (counted(), counted(), len(counted.calls) - made) == (2, 2, 1)


def test_a_rollback_invalidates_nothing_and_ends_the_change(counted: Any) -> None:
    made = len(counted.calls)
    with pytest.raises(RollbackError), transaction.atomic():
        Group.objects.create(name="a")
        invalidate_on_commit(cache=counted.cache, tags=["groups"])
        assert counted() == 1
        raise RollbackError
    assert (counted(), len(counted.calls) - made) == (0, 1)


def test_a_rollback_to_a_savepoint_ends_its_own_change(counted: Any) -> None:
    with transaction.atomic():
        invalidate_on_commit("other", cache=counted.cache)
        with pytest.raises(RollbackError), transaction.atomic():
            Group.objects.create(name="a")
            invalidate_on_commit(cache=counted.cache, tags=["groups"])
            assert counted() == 1
            raise RollbackError
        assert counted() == 0
        counted.cache.set("other", 1)
    assert (counted.cache.get("other"), counted()) == (None, 0)


def test_without_a_transaction_it_is_done_at_once(counted: Any) -> None:
    Group.objects.create(name="a")
    assert counted() == 0
    invalidate_on_commit(cache=counted.cache, tags=["groups"])
    assert counted() == 1
    invalidate_on_commit(counted.cache_key(), cache=counted.cache)
    assert counted.cache.get(counted.cache_key()) is None


def test_the_keys_of_a_cache_of_django_have_its_prefix(cache: Any) -> None:
    cache.set("a", 1)
    with transaction.atomic():
        invalidate_on_commit("a", cache=cache)
        assert cache.get("a") is None
        assert cache.add("b", 1)
        assert cache.inner.get(cache.make_key("a")) is None
        cache.set("a", 2)
    assert (cache.get("a"), cache.get("b")) == (None, 1)


@pytest.mark.parametrize(
    ("keys", "options", "parameter"),
    [((), {"cache": None}, "cache"), ((7,), {}, "keys"), ((), {"tags": ["with space"]}, "tags")],
)
def test_a_wrong_call_registers_nothing(
    counted: Any, keys: tuple[Any, ...], options: dict[str, Any], parameter: str
) -> None:
    with transaction.atomic():
        with pytest.raises(ConfigurationError) as caught:
            invalidate_on_commit(*keys, **{"cache": counted.cache, **options})
        assert caught.value.parameter == parameter
        assert transaction.get_connection().run_on_commit == []


def test_many_changes_of_one_transaction_are_one_hook(counted: Any) -> None:
    with transaction.atomic():
        for number in range(50):
            invalidate_on_commit(f"k{number}", cache=counted.cache)
        assert len(transaction.get_connection().run_on_commit) == 1


@pytest.fixture
def django_queries() -> Iterator[list[str]]:
    seen: list[str] = []

    def watch(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    with transaction.get_connection().execute_wrapper(watch):
        yield seen


def test_fields_of_any_kind_come_back(cache: Any) -> None:
    class Status(models.TextChoices):
        OPEN = "open"

    user = get_user_model()(username=Status.OPEN, first_name=mark_safe("x"))
    cache.set("u", user)
    again = cache.get("u")
    assert (type(again.username), again.username, again.date_joined) == (str, "open", user.date_joined)
