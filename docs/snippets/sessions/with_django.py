import django
from django.conf import settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.wsgi import get_wsgi_application
from django.dispatch import receiver
from django.http import HttpResponse
from django.urls import path

from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

if not settings.configured:  # a project has a settings module instead
    settings.configure(SECRET_KEY="from your secret store", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
    django.setup()


# One session, not two: ours begins and ends where Django's does, and decides how long both live.
@receiver(user_logged_in)
def begin(request, user, **_):
    request.environ["mks_hardening.session"].start(str(user.pk))


@receiver(user_logged_out)
def end(request, **_):
    request.environ["mks_hardening.session"].end()


def page(request):
    return HttpResponse(f"hello {request.environ['mks_hardening.session'].user_id}")


urlpatterns = [path("page", page)]

application = SessionTimeoutMiddleware(
    get_wsgi_application(),
    store=MemorySessionStore(),
    public_paths=["/sign-in"],
    # Without a living session of ours Django does not see its session cookie, so a stolen one opens nothing.
    # Its csrftoken is not in the list: the sign-in form needs that before there is a session.
    strip_cookies=["sessionid"],
)
