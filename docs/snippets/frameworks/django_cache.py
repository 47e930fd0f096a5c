import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application

if not settings.configured:  # a project has a settings module instead
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        CACHES={
            "default": {
                "BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache",
                "LOCATION": "",  # "redis://localhost:6379/0"; empty: MKS_CACHE_URL, or memory without it
                "KEY_PREFIX": "shop",
            }
        },
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        MIDDLEWARE=["mks_hardening.contrib.django_app.HardeningMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="from your secret store",
        SESSION_ENGINE="mks_hardening.contrib.django_app.sessions",
    )
    django.setup()

from django.contrib.auth.models import Group
from django.core.cache import cache
from django.core.management import call_command
from django.db import transaction
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.cache import cache_page

from mks_hardening.contrib.django_app import hardened, invalidate_on_commit


@cache_page(60)
def teams(_request):
    names = ", ".join(group.name for group in all_groups())
    return HttpResponse(names)


def all_groups():
    return cache.get_or_set("groups", lambda: Group.objects.order_by("name"), timeout=300)


def rename(group, name):
    with transaction.atomic():
        group.name = name
        group.save()
        invalidate_on_commit("groups", cache=cache)


urlpatterns = [path("teams", teams)]
application = hardened(get_wsgi_application())

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    group = Group.objects.create(name="Masonry")
    assert all_groups() == [group]  # a list of model instances, from the cache the next time
    rename(group, "Concrete")
    print([team.name for team in all_groups()])
    with cache.lock("report", timeout=60, blocking_timeout=5):  # one process at a time
        print(cache.keys("gro*"), cache.ttl("groups") > 200)
