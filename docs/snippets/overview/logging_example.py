from mks_hardening.logging import bound, setup_logging

logger = setup_logging("shop")
with bound(order=42):  # one line of JSON, with "order": 42 and "token=[REDACTED]"
    logger.info("paid by %s, token=%s", "tanaka", "s3cr3t")
