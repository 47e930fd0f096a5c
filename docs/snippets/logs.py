from mks_hardening.logging import bound, setup_logging

logger = setup_logging("knowledge", log_file="app.log")
with bound(request_id="3f9c", user_id="tanaka"):
    logger.info("signed in with password=%s", "hunter2")  # "signed in with password=[REDACTED]"
    try:
        {}["missing"]
    except KeyError:
        logger.exception("lookup failed")  # one line of JSON, the traceback as structure and as text
