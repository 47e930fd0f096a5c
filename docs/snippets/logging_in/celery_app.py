from celery import Celery
from celery.signals import setup_logging as celery_sets_up_logging

from mks_hardening.logging import setup_logging

app = Celery("knowledge", broker="memory://", backend="cache+memory://")


@celery_sets_up_logging.connect(weak=False)
def keep_ours(**_options: object) -> None:
    """Celery leaves logging alone as soon as anything listens to this signal."""
    setup_logging("knowledge")


@app.task
def sign_in(password: str) -> None:
    import logging

    logging.getLogger("knowledge").warning("signed in with password=%s", password)
