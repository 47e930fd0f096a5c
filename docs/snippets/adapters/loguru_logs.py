from loguru import logger

from mks_hardening.contrib.loguru_sink import LoguruSink
from mks_hardening.logging import setup_logging

setup_logging("knowledge")
logger.configure(handlers=[{"sink": LoguruSink(), "format": "{message}"}])
logger.bind(user="tanaka", password="hunter2").warning("signed in")
