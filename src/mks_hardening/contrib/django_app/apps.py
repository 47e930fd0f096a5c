"""The application configuration for ``INSTALLED_APPS``, in the module where Django looks for it."""

from __future__ import annotations

from mks_hardening.contrib.django_app._components import reset_components
from mks_hardening.contrib.django_app._django import AppConfig, checks, setting_changed, signals

__all__ = ["HardeningConfig"]


class HardeningConfig(AppConfig):
    """Application configuration that registers system checks and receivers of signals."""

    name = "mks_hardening.contrib.django_app"
    label = "mks_hardening"
    verbose_name = "Hardening"

    def ready(self) -> None:
        """Register them; called by Django when all applications are loaded."""
        from mks_hardening.contrib.django_app._system_checks import check_deployment, check_project
        from mks_hardening.contrib.django_app.login_limits import note_failure, note_success

        checks.register(check_project, "security")
        checks.register(check_deployment, "security", deploy=True)
        # dispatch_uid: tests load applications repeatedly, and each time would add another receiver.
        setting_changed.connect(reset_components, dispatch_uid=self.name)
        signals.user_login_failed.connect(note_failure, dispatch_uid=self.name)
        signals.user_logged_in.connect(note_success, dispatch_uid=self.name)
