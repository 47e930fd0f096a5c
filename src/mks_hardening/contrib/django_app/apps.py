"""The application that ``INSTALLED_APPS`` names; Django finds it here."""

from __future__ import annotations

from mks_hardening.contrib.django_app._components import forget_parts
from mks_hardening.contrib.django_app._django import AppConfig, checks, setting_changed

__all__ = ["HardeningConfig"]


class HardeningConfig(AppConfig):
    """Registers the system checks."""

    name = "mks_hardening.contrib.django_app"
    label = "mks_hardening"
    verbose_name = "Hardening"

    def ready(self) -> None:
        """Called by Django once all applications are loaded."""
        from mks_hardening.contrib.django_app._system_checks import check_deployment, check_project

        checks.register(check_project, "security")
        checks.register(check_deployment, "security", deploy=True)
        # dispatch_uid: tests load applications again and again, and each would be told as often.
        setting_changed.connect(forget_parts, dispatch_uid=self.name)
