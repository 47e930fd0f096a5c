# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening.settings.application_settings import ApplicationSettings as ApplicationSettings
from mks_hardening.settings.application_settings import setting as setting
from mks_hardening.settings.definitions import CacheSettings as CacheSettings
from mks_hardening.settings.definitions import CoreSettings as CoreSettings
from mks_hardening.settings.definitions import DatabaseSettings as DatabaseSettings
from mks_hardening.settings.definitions import LoggingSettings as LoggingSettings
from mks_hardening.settings.definitions import NotifySettings as NotifySettings
from mks_hardening.settings.definitions import SecuritySettings as SecuritySettings
from mks_hardening.settings.definitions import WsgiSettings as WsgiSettings
from mks_hardening.settings.hardening import HardeningSettings as HardeningSettings
from mks_hardening.settings.variable_table import Variable as Variable
from mks_hardening.settings.variable_table import register_variables as register_variables
from mks_hardening.settings.variable_table import variables as variables
