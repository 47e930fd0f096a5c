from functools import wraps

import django
from django.conf import settings

from mks_hardening.wsgi import ContentSecurityPolicy, HeaderPolicy

if not settings.configured:  # a project has a settings module instead
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        MIDDLEWARE=["mks_hardening.contrib.django_app.HardeningMiddleware"],
        MKS_HARDENING={
            "headers": HeaderPolicy.web(
                csp=ContentSecurityPolicy(
                    {"default-src": "'self'", "script-src": "'self'", "object-src": "'none'"}, nonce=True
                )
            )
        },
        ROOT_URLCONF=__name__,
        SECRET_KEY="from your secret store",
        SESSION_ENGINE="mks_hardening.contrib.django_app.sessions",
    )
    django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from mks_hardening.contrib.django_app import hardened


def csp(directives, *, report_only=False):
    """The policy of one view; the view's own field takes precedence over that of all pages."""
    policy = ContentSecurityPolicy(directives, nonce="script-src" in directives, report_only=report_only)

    def decorate(view):
        @wraps(view)
        def with_policy(request, *args, **values):
            response = view(request, *args, **values)
            response[policy.header_name] = policy.header_value(request.META["mks_hardening.csp_nonce"])
            return response

        return with_policy

    return decorate


def page(request):
    return HttpResponse(f'<script nonce="{request.META["mks_hardening.csp_nonce"]}"></script>')


@csp(
    {
        "default-src": "'self'",
        "script-src": "'self'",
        "object-src": "'none'",
        "img-src": "https://img.example.com",
    }
)
def gallery(_request):
    return HttpResponse("pictures")


@csp({"default-src": "'none'"})
def api(_request):
    return HttpResponse("{}")


@csp({"default-src": "'self'"}, report_only=True)
def trial(_request):
    return HttpResponse("trial")


def raw(_request):
    return HttpResponse("raw")


urlpatterns = [path(view.__name__, view) for view in (page, gallery, api, trial, raw)]
application = hardened(get_wsgi_application())
