import structlog

from mks_hardening.contrib.structlog_renderer import StructlogRenderer

structlog.configure(processors=[structlog.contextvars.merge_contextvars, StructlogRenderer()])
structlog.get_logger().warning("signed in", user="tanaka", password="hunter2")
