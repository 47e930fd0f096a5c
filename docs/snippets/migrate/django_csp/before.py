import django
from csp.constants import NONCE, SELF
from django.conf import settings

if not settings.configured:  # a project has a settings module instead
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        CONTENT_SECURITY_POLICY={
            "DIRECTIVES": {"default-src": [SELF], "script-src": [SELF, NONCE], "object-src": ["'none'"]},
            "EXCLUDE_URL_PREFIXES": ["/raw"],
        },
        MIDDLEWARE=["csp.middleware.CSPMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="from your secret store",
    )
    django.setup()

from csp.decorators import csp, csp_update
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path


def page(request):
    return HttpResponse(f'<script nonce="{request.csp_nonce}"></script>')


@csp_update({"img-src": ["https://img.example.com"]})
def gallery(_request):
    return HttpResponse("pictures")


@csp({"default-src": ["'none'"]})
def api(_request):
    return HttpResponse("{}")


@csp({"default-src": [SELF]}, REPORT_ONLY=True)
def trial(_request):
    return HttpResponse("trial")


def raw(_request):
    return HttpResponse("raw")


urlpatterns = [path(view.__name__, view) for view in (page, gallery, api, trial, raw)]
application = get_wsgi_application()
