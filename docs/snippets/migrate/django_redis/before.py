import django
from django.conf import settings
from fakeredis import FakeConnection  # a Redis inside this process, so that the comparison needs no server

settings.configure(  # what a project with django-redis has in its settings.py
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://localhost:6379/0",
            "KEY_PREFIX": "shop",
            "OPTIONS": {"CONNECTION_POOL_KWARGS": {"connection_class": FakeConnection}},
        }
    },
    SECRET_KEY="from your secret store",
)
django.setup()
