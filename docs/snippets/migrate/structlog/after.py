import structlog

from mks_hardening.contrib.structlog_renderer import StructlogRenderer

structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, StructlogRenderer(logger="shop")],
)
logger = structlog.get_logger()
