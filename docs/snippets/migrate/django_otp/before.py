import django
from django.conf import settings

settings.configure(  # what a project with django-otp has in its settings.py
    SECRET_KEY="from your secret store",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_otp",
        "django_otp.plugins.otp_totp",
        "django_otp.plugins.otp_static",
    ],
)
django.setup()

from django_otp.plugins.otp_totp.models import TOTPDevice  # noqa: E402 - after the set-up


def check(user, code):
    return TOTPDevice.objects.get(user=user, confirmed=True).verify_token(code)
