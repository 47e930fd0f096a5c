# gunicorn -c gunicorn.conf.py app:application
from mks_hardening.logging import dict_config

logconfig_dict = dict_config("knowledge")  # the error log and the access log too
accesslog = "-"
