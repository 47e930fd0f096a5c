import django
from django.conf import settings

if not settings.configured:  # a project has a settings module instead
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        MIDDLEWARE=["mks_hardening.contrib.django_app.HardeningMiddleware"],
        MKS_HARDENING={
            "groups": {
                "sign_in": "3 per minute",
                "comment": "2 per minute",
                "data": "2 per minute",
                "report": "3 per minute, 5 per hour",
            },
        },
        ROOT_URLCONF=__name__,
        SECRET_KEY="from your secret store",
        SESSION_ENGINE="mks_hardening.contrib.django_app.sessions",
    )
    django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from mks_hardening.contrib.django_app import hardened, limit


@limit("sign_in")
def sign_in(_request):
    return HttpResponse("signed in")


@limit("comment", methods=["POST"])
def comment(_request):
    return HttpResponse("thank you")


@limit("data", key=lambda request: request.headers.get("X-Api-Key", ""))
def data(_request):
    return HttpResponse("data")


@limit("report")
def report(_request):
    return HttpResponse("report")


urlpatterns = [path(view.__name__, view) for view in (sign_in, comment, data, report)]
application = hardened(get_wsgi_application())
