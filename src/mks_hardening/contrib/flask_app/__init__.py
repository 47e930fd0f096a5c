"""Flask: everything at the edge by one line, Flask's ``session`` inside ours, and limits for single views.

.. code-block:: python

    Hardening(app, HardeningSettings.from_env())
"""

from __future__ import annotations

from mks_hardening._core.facade import exported
from mks_hardening._core.lazy import optional

with optional("flask", extra="flask"):
    from mks_hardening.contrib.flask_app._extension import Hardening
    from mks_hardening.contrib.flask_app._here import csp_nonce, current_csrf_token, current_session
    from mks_hardening.contrib.flask_app._installed import Installed
    from mks_hardening.contrib.flask_app._limits import exempt, limit
    from mks_hardening.contrib.flask_app._session import HardenedSession

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
