# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening.production_check.check_definition import CheckDefinition as CheckDefinition
from mks_hardening.production_check.finding import Finding as Finding
from mks_hardening.production_check.registry import definitions as definitions
from mks_hardening.production_check.report_formats import render_report as render_report
from mks_hardening.production_check.runner import CheckReport as CheckReport
from mks_hardening.production_check.runner import check as check
