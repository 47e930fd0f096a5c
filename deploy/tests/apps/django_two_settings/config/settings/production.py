"""Settings of the site."""

from .base import *
from .base import env

SECRET_KEY = env("DJANGO_SECRET_KEY")
ALLOWED_HOSTS = env.list("DJANGO_ALLOWED_HOSTS", default=["shop.example.test"])
ADMIN_URL = env("DJANGO_ADMIN_URL")
EMAIL_PAGES = env.int("DJANGO_PAGE_SIZE", default=20)
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
