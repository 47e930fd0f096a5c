"""Settings behind a proxy that ends TLS."""

from .base import *  # noqa: F403, TID252 - as Django projects split their settings

DEBUG = False
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
CSRF_COOKIE_SECURE = True
