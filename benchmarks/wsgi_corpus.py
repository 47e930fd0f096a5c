"""Number of cases of the redirect and header tables that each stack passes: ours, and installed peers.

    python benchmarks/wsgi_corpus.py [-v]

Each peer is configured as well as possible for each case. A peer without an option for a case fails it.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests/corpus"), str(ROOT / "tests/support")]

import wsgi_cases  # noqa: E402

import wsgi_stacks  # noqa: E402

HOPS = 1


class Current:
    """Passes the environ to the application of the current case, as the views of the frameworks do."""

    app: Any = None

    def __call__(self, environ: dict[str, Any]) -> None:
        """Call the application and read its whole response."""
        seen = {key: value for key, value in environ.items() if key[0].isupper() or key.startswith("wsgi.")}
        body = self.app({**seen, "wsgi.input": io.BytesIO()}, lambda *_head: print)
        list(body)
        body.close()


CURRENT = Current()


def proxy_fix(app: Any, config: dict[str, Any]) -> Any:
    from werkzeug.middleware.proxy_fix import ProxyFix

    hops = config.get("hops") or HOPS
    return ProxyFix(app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops, x_prefix=hops)


def waitress(app: Any, config: dict[str, Any]) -> Any:
    from waitress.proxy_headers import proxy_headers_middleware

    names = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"}
    if config.get("family") == "forwarded":
        names = {"forwarded"}
    return proxy_headers_middleware(
        app,
        trusted_proxy="10.0.0.1",
        trusted_proxy_count=config.get("hops") or HOPS,
        trusted_proxy_headers=names,
        clear_untrusted=True,
    )


def _django_settings(config: dict[str, Any]) -> dict[str, Any]:
    exempt = [
        *config.get("exempt_paths", ["/.well-known/acme-challenge/"]),
        *config.get("probe_paths", ["/livez", "/readyz"]),
    ]
    patterns = [f"^{path.lstrip('/')}{'' if path.endswith('/') else '$'}" for path in exempt]
    return {
        "ALLOWED_HOSTS": [
            host.encode("idna").decode() if not host.isascii() else host for host in config["allowed_hosts"]
        ],
        "SECURE_SSL_REDIRECT": config.get("force_https", True),
        "SECURE_REDIRECT_EXEMPT": patterns,
        "SECURE_SSL_HOST": config.get("canonical_host"),
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "USE_X_FORWARDED_HOST": True,
    }


def django(app: Any, config: dict[str, Any], *, behind_waitress: bool = False) -> Any:
    import django as package
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.test.utils import override_settings
    from django.urls import re_path

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x" * 50, LOGGING_CONFIG=None)
        package.setup()

    CURRENT.app = app

    def view(request):
        CURRENT(request.environ)
        return HttpResponse(b"the application")

    globals()["urlpatterns"] = [re_path("", view)]
    middleware = [
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ]
    options = {**_django_settings(config), "MIDDLEWARE": middleware, "DEBUG": False}
    if behind_waitress:
        options |= {"SECURE_PROXY_SSL_HEADER": None, "USE_X_FORWARDED_HOST": False}
    with override_settings(**options):
        handler = WSGIHandler()

    def call(environ, start_response):
        with override_settings(**options):
            return handler(environ, start_response)

    return waitress(call, config) if behind_waitress else call


def waitress_django(app: Any, config: dict[str, Any]) -> Any:
    return django(app, config, behind_waitress=True)


def talisman(app: Any, config: dict[str, Any]) -> Any:
    from flask import Flask, Response, request
    from flask_talisman import Talisman

    CURRENT.app = app

    flask = Flask("peer")
    flask.config["TRUSTED_HOSTS"] = [
        host.encode("idna").decode() if not host.isascii() else host for host in config["allowed_hosts"]
    ]
    Talisman(
        flask,
        force_https=config.get("force_https", True),
        force_https_permanent=config.get("permanent", True),
        content_security_policy=None,
    )

    @flask.route(
        "/", defaults={"path": ""}, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    )
    @flask.route("/<path:path>", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def view(path):
        del path
        CURRENT(request.environ)
        return Response(b"the application", mimetype="text/plain")

    return proxy_fix(flask, config)


def secure_py(app: Any, config: dict[str, Any]) -> Any:
    from secure import ContentSecurityPolicy, CustomHeader, Preset, Secure, StrictTransportSecurity
    from secure.middleware.wsgi import SecureWSGIMiddleware

    presets = {"web": Preset.BALANCED, "strict": Preset.STRICT, "api": Preset.STRICT}
    preset = config.get("preset")
    if preset is not None and set(config) == {"preset"}:
        return SecureWSGIMiddleware(app, secure=Secure.from_preset(presets[preset]))
    options: dict[str, Any] = {}
    if config.get("hsts") is not None:
        wanted = {"max_age": 63072000, "include_subdomains": True, "preload": False, **config["hsts"]}
        hsts = StrictTransportSecurity().max_age(wanted["max_age"])
        hsts = hsts.include_subdomains() if wanted["include_subdomains"] else hsts
        options["hsts"] = hsts.preload() if wanted["preload"] else hsts
    if config.get("csp") is not None:
        csp = ContentSecurityPolicy()
        for name, values in config["csp"]["directives"].items():
            listed = values.split() if isinstance(values, str) else values
            csp = csp.custom(name, *(() if isinstance(listed, bool) else listed))
        options["csp"] = csp.report_only() if config["csp"].get("report_only") else csp
    plain = {**config.get("extra", {}), **{name.replace("_", "-"): value for name, value in config.items()}}
    names = ("referrer-policy", "frame-options", "cache-control")
    fields = [
        CustomHeader(name, value)
        for name, value in plain.items()
        if name in names or name in config.get("extra", {})
    ]
    return SecureWSGIMiddleware(app, secure=Secure(**options, custom=fields))


TABLES = {
    "redirect": {
        "ours": wsgi_stacks.make_redirect_stack,
        "waitress + Django": waitress_django,
        "Django SecurityMiddleware": django,
        "Flask + Talisman + ProxyFix": talisman,
    },
    "headers": {"ours": wsgi_stacks.make_headers_stack, "secure.py": secure_py},
}


def main() -> None:
    warnings.simplefilter("ignore")
    for table, stacks in TABLES.items():
        cases = wsgi_cases.read(ROOT / f"tests/corpus/wsgi/{table}.jsonl")
        print(f"{table}: {len(cases)} cases")
        for name, stack in stacks.items():
            results = list(wsgi_cases.run(cases, stack))
            passed = sum(not found for _, found in results)
            lost: dict[str, int] = {}
            for case, found in results:
                if found:
                    group = case["id"].rsplit("-", 1)[0]
                    lost[group] = lost.get(group, 0) + 1
                    if "-v" in sys.argv:
                        print(f"    {name}: {case['id']}: {'; '.join(found)[:150]}")
            print(
                f"  {name:32} {passed:4}  lost: {', '.join(f'{key} {count}' for key, count in lost.items()) or '-'}"
            )


if __name__ == "__main__":
    main()
