# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening.settings.areas import CacheSettings as CacheSettings
from mks_hardening.settings.areas import CoreSettings as CoreSettings
from mks_hardening.settings.areas import DatabaseSettings as DatabaseSettings
from mks_hardening.settings.areas import LoggingSettings as LoggingSettings
from mks_hardening.settings.areas import NotifySettings as NotifySettings
from mks_hardening.settings.areas import SecuritySettings as SecuritySettings
from mks_hardening.settings.areas import WsgiSettings as WsgiSettings
from mks_hardening.settings.hardening import HardeningSettings as HardeningSettings
from mks_hardening.settings.table import Variable as Variable
from mks_hardening.settings.table import register_variables as register_variables
from mks_hardening.settings.table import variables as variables
