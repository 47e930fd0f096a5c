from datetime import timedelta

import django
from django.conf import settings

if not settings.configured:  # a project has a settings module instead
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        AUTHENTICATION_BACKENDS=[
            "axes.backends.AxesStandaloneBackend",
            "django.contrib.auth.backends.ModelBackend",
        ],
        AXES_COOLOFF_TIME=timedelta(minutes=1),
        AXES_FAILURE_LIMIT=5,
        AXES_LOCKOUT_PARAMETERS=[["username", "ip_address"]],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "axes",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "axes.middleware.AxesMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="from your secret store",
    )
    django.setup()

from django.contrib.auth import authenticate, login
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path


def sign_in(request):
    user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong name or password", status=401)
    login(request, user)
    return HttpResponse("welcome")


urlpatterns = [path("sign_in", sign_in)]
application = get_wsgi_application()
