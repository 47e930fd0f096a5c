# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_check.migrations.migration_linter import MigrationLinter as MigrationLinter
from mks_check.migrations.migration_report import MigrationFinding as MigrationFinding
from mks_check.migrations.migration_report import MigrationReport as MigrationReport
from mks_check.migrations.migration_rules import MIGRATION_RULES as MIGRATION_RULES
from mks_check.migrations.migration_rules import MigrationRule as MigrationRule
from mks_check.migrations.recorded_migration import MigrationStep as MigrationStep
from mks_check.migrations.recorded_migration import RecordedMigration as RecordedMigration
from mks_check.production_check.check_definition import CheckDefinition as CheckDefinition
from mks_check.production_check.finding import Finding as Finding
from mks_check.production_check.registry import definitions as definitions
from mks_check.production_check.report_formats import render_report as render_report
from mks_check.production_check.runner import CheckReport as CheckReport
from mks_check.production_check.runner import check as check
