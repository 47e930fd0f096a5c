import waitress
from hello import app

from mks_hardening.contrib.waitress_config import waitress_config

waitress.serve(app, **waitress_config("knowledge", listen="127.0.0.1:8000"))
