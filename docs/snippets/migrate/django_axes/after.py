import django
from django.conf import settings

if not settings.configured:  # a project has a settings module instead
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        AUTHENTICATION_BACKENDS=[
            "mks_hardening.contrib.django_app.login_limits.LoginLimitBackend",
            "django.contrib.auth.backends.ModelBackend",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "mks_hardening.contrib.django_app",
        ],
        MIDDLEWARE=[
            "mks_hardening.contrib.django_app.HardeningMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        # The default groups, written out; "auth_login" is one client with one name.
        MKS_HARDENING={"groups": {"auth_login": "5 per minute, 20 per hour, 50 per day"}},
        ROOT_URLCONF=__name__,
        SECRET_KEY="from your secret store",
        SESSION_ENGINE="mks_hardening.contrib.django_app.sessions",
    )
    django.setup()

from django.contrib.auth import authenticate, login
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from mks_hardening.contrib.django_app import hardened


def sign_in(request):
    user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong name or password", status=401)
    login(request, user)
    return HttpResponse("welcome")


urlpatterns = [path("sign_in", sign_in)]
application = hardened(get_wsgi_application())
