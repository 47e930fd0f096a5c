import uvicorn
from hello import asgi_app

from mks_hardening.contrib.uvicorn_config import uvicorn_config

uvicorn.run(asgi_app, **uvicorn_config("knowledge", port=8000))
