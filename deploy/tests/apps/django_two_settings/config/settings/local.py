"""Settings of a laptop."""

from .base import *
from .base import env

DEBUG = True
SECRET_KEY = env("DJANGO_LOCAL_SECRET_KEY", default="only on this laptop")
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": env("LOCAL_REDIS_URL")}}
