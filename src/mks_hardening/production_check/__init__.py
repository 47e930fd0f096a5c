"""An audit before and after go-live: settings, application, files of a deployment, host and live site."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.production_check.check_definition": ["CheckDefinition"],
    "mks_hardening.production_check.finding": ["Finding"],
    "mks_hardening.production_check.registry": ["definitions"],
    "mks_hardening.production_check.report_formats": ["render_report"],
    "mks_hardening.production_check.runner": ["CheckReport", "check"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
