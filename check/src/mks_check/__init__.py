"""What judges a project and never runs in production: checks before go-live, and judgements of migrations."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_check.migrations.migration_linter": ["MigrationLinter"],
    "mks_check.migrations.migration_report": ["MigrationFinding", "MigrationReport"],
    "mks_check.migrations.migration_rules": ["MIGRATION_RULES", "MigrationRule"],
    "mks_check.migrations.recorded_migration": ["MigrationStep", "RecordedMigration"],
    "mks_check.production_check.check_definition": ["CheckDefinition"],
    "mks_check.production_check.finding": ["Finding"],
    "mks_check.production_check.registry": ["definitions"],
    "mks_check.production_check.report_formats": ["render_report"],
    "mks_check.production_check.runner": ["CheckReport", "check"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
