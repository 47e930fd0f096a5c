import os

from django.conf import settings

from mks_hardening.contrib.django_app import hardened, logging_config
from mks_hardening.settings import HardeningSettings

settings.configure(  # a project has these in its settings.py
    DEBUG=os.environ.get("MKS_ENV") == "development",
    SECRET_KEY="from your secret store",
    ALLOWED_HOSTS=HardeningSettings.from_env().wsgi.allowed_hosts,  # of MKS_ALLOWED_HOSTS
    ROOT_URLCONF=__name__,
    WSGI_APPLICATION=f"{__name__}.application",
    INSTALLED_APPS=["mks_hardening.contrib.django_app"],
    MIDDLEWARE=[
        "mks_hardening.contrib.django_app.HardeningMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    SESSION_ENGINE="mks_hardening.contrib.django_app.sessions",
    LOGGING=logging_config("notes"),
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)

from django.core.wsgi import get_wsgi_application  # noqa: E402 - after the settings
from django.http import HttpResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import path  # noqa: E402

PAGE = """<!doctype html><title>Note</title>
<form method="post"><input name="note">{% csrf_token %}<button>Save</button></form>
"""


def note(request):
    if request.method == "POST":
        return HttpResponse(f"saved {len(request.POST['note'])} characters")
    return HttpResponse(engines.all()[0].from_string(PAGE).render({}, request))


urlpatterns = [path("", note)]
application = hardened(get_wsgi_application())

if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", 8000, application).serve_forever()
