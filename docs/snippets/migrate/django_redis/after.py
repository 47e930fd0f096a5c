import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["localhost"],
    CACHES={
        "default": {
            "BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache",
            "LOCATION": "",  # "redis://localhost:6379/0"; empty: the memory of the process
            "KEY_PREFIX": "shop",
        }
    },
    SECRET_KEY="from your secret store",
)
django.setup()
