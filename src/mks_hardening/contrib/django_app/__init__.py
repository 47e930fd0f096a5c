"""Django: middleware, Django's session stored in ours, a cache, system checks, and rate limits for views.

In ``settings.py``, with ``HardeningMiddleware`` in place of Django's ``SessionMiddleware`` and
``SecurityMiddleware``, and in ``wsgi.py``:

.. code-block:: python

    INSTALLED_APPS += ["mks_hardening.contrib.django_app"]
    MIDDLEWARE = ["mks_hardening.contrib.django_app.HardeningMiddleware", *MIDDLEWARE]
    SESSION_ENGINE = "mks_hardening.contrib.django_app.sessions"

    application = hardened(get_wsgi_application())

Importing this module does not read Django's settings, so ``settings.py`` may import it.
"""

from __future__ import annotations

from mks_hardening._core.lazy_exports import exported
from mks_hardening.contrib.django_app._hardening_middleware import HardeningMiddleware
from mks_hardening.contrib.django_app._on_commit import invalidate_on_commit
from mks_hardening.contrib.django_app._project import hardened, logging_config, template_context
from mks_hardening.contrib.django_app._view_limits import exempt, limit

__all__ = [
    "HardeningMiddleware",
    "exempt",
    "hardened",
    "invalidate_on_commit",
    "limit",
    "logging_config",
    "template_context",
]

exported(
    __name__,
    [
        HardeningMiddleware,
        exempt,
        hardened,
        invalidate_on_commit,
        limit,
        logging_config,
        template_context,
    ],
)
