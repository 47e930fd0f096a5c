"""Kinto, a JSON store on Pyramid: methods, batches and authorization of an API."""

from __future__ import annotations

from compatibility_walks import Application, Visit


def walk(visit: Visit) -> None:
    with visit.step("create an account"):
        visit.send("PUT", "/v1/accounts/ann", expect=201, data={"data": {"password": "open sesame"}})
    with visit.step("write and read over the API"):
        visit.send("PUT", "/v1/buckets/site", expect=201, headers=_BASIC)
        visit.send("PUT", "/v1/buckets/site/collections/notes", expect=201, headers=_BASIC)
        record = {"data": {"title": "First"}}
        visit.send(
            "POST", "/v1/buckets/site/collections/notes/records", expect=201, data=record, headers=_BASIC
        )
        visit.send("PATCH", "/v1/buckets/site", expect=200, data={"data": {"colour": "red"}}, headers=_BASIC)
    with visit.step("batch"):
        requests = {"requests": [{"method": "GET", "path": "/v1/buckets/site/collections/notes/records"}]}
        found = visit.send("POST", "/v1/batch", expect=200, data=requests, headers=_BASIC)
        assert "First" in found.text()
    with visit.step("front page"):
        visit.go("/v1/")
        visit.sees("text=project_name")
    with visit.step("OpenAPI document"):
        visit.go("/v1/__api__")
    with visit.step("delete"):
        visit.send("DELETE", "/v1/buckets/site", expect=200, headers=_BASIC)


_BASIC = {"Authorization": "Basic YW5uOm9wZW4gc2VzYW1l"}

APPLICATION = Application(
    name="kinto",
    distribution="kinto",
    kind="wsgi",
    framework="Pyramid",
    start="""
import kinto

settings = {
    "kinto.includes": "kinto.plugins.accounts",
    "kinto.storage_backend": "kinto.core.storage.memory",
    "kinto.permission_backend": "kinto.core.permission.memory",
    "kinto.cache_backend": "kinto.core.cache.memory",
    "kinto.userid_hmac_secret": "of the test",
    "kinto.account_create_principals": "system.Everyone",
    "kinto.bucket_create_principals": "system.Authenticated",
    "multiauth.policies": "account",
    "multiauth.policy.account.use": "kinto.plugins.accounts.authentication.AccountsAuthenticationPolicy",
}
app = kinto.main({}, None, **settings)
""",
    walk=walk,
    page="/v1/",
)
