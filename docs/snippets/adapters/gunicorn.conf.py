# gunicorn application:app
from mks_hardening.contrib.gunicorn_config import gunicorn_config

globals().update(gunicorn_config("knowledge", workers=2, metrics_port=9464))
