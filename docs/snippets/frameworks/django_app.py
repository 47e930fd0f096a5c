import django
from django.conf import settings

settings.configure(  # a project has these in its settings.py; the four lines with a comment are ours
    SECRET_KEY="from your secret store",
    ALLOWED_HOSTS=["www.example.com", "127.0.0.1"],
    LOGIN_URL="/admin/login/",
    ROOT_URLCONF=__name__,
    STATIC_URL="/static/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "mks_hardening.contrib.django_app",  # system checks
    ],
    MIDDLEWARE=[
        "mks_hardening.contrib.django_app.HardeningMiddleware",  # for SecurityMiddleware and SessionMiddleware
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    SESSION_ENGINE="mks_hardening.contrib.django_app.sessions",  # one session, ended on the server
    CACHES={
        "default": {"BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache"}
    },  # an outage is a miss
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
django.setup()

from django.contrib import admin  # noqa: E402 - after the set-up, as in a project's own modules
from django.core.cache import cache  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from mks_hardening.contrib.django_app import hardened, limit  # noqa: E402


def basket(request, item):
    request.session["basket"] = [*request.session.get("basket", []), item]
    return JsonResponse({"user": request.user.get_username(), "basket": request.session["basket"]})


@limit("auth_password_reset")
def reset(request):
    return JsonResponse({"to": request.GET.get("to"), "sent": cache.get_or_set("mails", 0)})


urlpatterns = [path("admin/", admin.site.urls), path("basket/<item>", basket), path("reset", reset)]

application = hardened(get_wsgi_application())  # in wsgi.py
