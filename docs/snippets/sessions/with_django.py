import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

if not settings.configured:  # a project has a settings module instead
    settings.configure(SECRET_KEY="from your secret store", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
    django.setup()


def sign_in(request):
    request.environ["mks_hardening.session"].start("alice")  # after the password was checked
    return HttpResponse("welcome")


def page(request):
    return HttpResponse(f"hello {request.environ['mks_hardening.session'].user_id}")


urlpatterns = [path("sign-in", sign_in), path("page", page)]

# With Django's own sessions: strip_cookies=["sessionid", "csrftoken"].
application = SessionTimeoutMiddleware(
    get_wsgi_application(), store=MemorySessionStore(), public_paths=["/sign-in"]
)
