import hashlib
import secrets

from flask import Flask, abort, request

from mks_hardening.contrib.flask_app import Hardening, limit
from mks_hardening.settings import HardeningSettings

owners = {}  # a table in the database: the digest of a key, and whose key it is


def digest_of(key):
    return hashlib.sha256(key.encode()).hexdigest()  # 256 random bits need no slow hash


def issue_key(owner):
    key = f"shop_{secrets.token_urlsafe(32)}"  # scanners for leaked secrets recognise the prefix
    owners[digest_of(key)] = owner
    return key  # shown once; nobody can read it from the table


def api_client():
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return owners.get(digest_of(key)) if scheme.lower() == "bearer" else None


app = Flask(__name__)
Hardening(
    app,
    HardeningSettings.from_env(environ={"MKS_ENV": "development"}),  # from_env() in production
    groups={"api": "3 per minute"},
    api_paths=["/api/"],  # refused over plain HTTP, instead of redirected
)


@app.post("/api/orders")
@limit("api", key=lambda: api_client() or request.remote_addr)  # guessing is limited by address
def order():
    return {"customer": api_client() or abort(401)}


if __name__ == "__main__":
    client, key = app.test_client(), issue_key("mirai")
    bearer = {"Authorization": f"Bearer {key}"}
    print("without a key:", client.post("/api/orders").status_code)
    print("with a key:", [client.post("/api/orders", headers=bearer).status_code for _ in range(4)])
    second = {"Authorization": f"Bearer {issue_key('mirai')}"}
    del owners[digest_of(key)]
    print("revoked:", client.post("/api/orders", headers=bearer).status_code)
    print("the second key of the same customer:", client.post("/api/orders", headers=second).status_code)
