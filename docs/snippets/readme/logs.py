from mks_hardening.logging import bound, setup_logging

logger = setup_logging("knowledge")
with bound(request_id="3f9c"):
    logger.info("signed in with password=%s", "hunter2")
# -> {...,"message":"signed in with password=[REDACTED]","request_id":"3f9c"}
