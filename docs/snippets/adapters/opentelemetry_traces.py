from hello import app, settings

from mks_hardening.compose import harden_wsgi
from mks_hardening.contrib.otel_observer import OpenTelemetryObserver
from mks_hardening.events import add_observer

telemetry = OpenTelemetryObserver()  # records nothing until the application configures an SDK
add_observer(telemetry)  # metrics, and events of the cache
app = harden_wsgi(app, settings, tracer=telemetry)  # spans; telemetry.watch_engine(engine) for statements
