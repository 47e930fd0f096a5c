from mks_hardening.contrib.prometheus_observer import PrometheusObserver
from mks_hardening.events import add_observer

metrics = PrometheusObserver()
add_observer(metrics)
listener = metrics.serve(9464)  # http://127.0.0.1:9464/metrics; under gunicorn, see gunicorn.conf.py
