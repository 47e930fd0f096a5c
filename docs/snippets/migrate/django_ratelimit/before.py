import django
from django.conf import settings

if not settings.configured:  # a project has a settings module instead
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        MIDDLEWARE=["django_ratelimit.middleware.RatelimitMiddleware"],
        RATELIMIT_VIEW=f"{__name__}.too_many",  # without it, the response is 403
        ROOT_URLCONF=__name__,
        SECRET_KEY="from your secret store",
        SILENCED_SYSTEM_CHECKS=["django_ratelimit.E003", "django_ratelimit.W001"],  # Redis in production
    )
    django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from django_ratelimit.decorators import ratelimit


def too_many(_request, _error):
    return HttpResponse("too many requests", status=429)


@ratelimit(key="ip", rate="3/m", block=True)
def sign_in(_request):
    return HttpResponse("signed in")


@ratelimit(key="ip", rate="2/m", method="POST", block=True)
def comment(_request):
    return HttpResponse("thank you")


@ratelimit(key="header:x-api-key", rate="2/m", block=True)
def data(_request):
    return HttpResponse("data")


@ratelimit(key="ip", rate="3/m", block=True)
@ratelimit(key="ip", rate="5/h", block=True)
def report(_request):
    return HttpResponse("report")


urlpatterns = [path(view.__name__, view) for view in (sign_in, comment, data, report)]
application = get_wsgi_application()
