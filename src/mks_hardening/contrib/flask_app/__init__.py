"""Flask: hardening in one line, ``flask.session`` stored in our session, and rate limits for views.

.. code-block:: python

    Hardening(app, HardeningSettings.from_env())
"""

from __future__ import annotations

from mks_hardening._core.lazy_exports import exported
from mks_hardening._core.optional_imports import optional

with optional("flask", extra="flask"):
    from mks_hardening.contrib.flask_app._current_request import (
        csp_nonce,
        current_csrf_token,
        current_session,
    )
    from mks_hardening.contrib.flask_app._extension import Hardening
    from mks_hardening.contrib.flask_app._installed import Installed
    from mks_hardening.contrib.flask_app._session import HardenedSession
    from mks_hardening.contrib.flask_app._view_limits import exempt, limit

__all__ = [
    "HardenedSession",
    "Hardening",
    "Installed",
    "csp_nonce",
    "current_csrf_token",
    "current_session",
    "exempt",
    "limit",
]

exported(
    __name__,
    [HardenedSession, Hardening, Installed, csp_nonce, current_csrf_token, current_session, exempt, limit],
)
