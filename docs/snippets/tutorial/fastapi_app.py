from typing import Annotated

from fastapi import Depends, FastAPI, Form
from fastapi.responses import HTMLResponse, PlainTextResponse

from mks_hardening.contrib.fastapi_app import Hardening, csrf_token
from mks_hardening.logging import setup_logging
from mks_hardening.settings import HardeningSettings

PAGE = """<!doctype html><title>Note</title>
<form method="post">
  <input name="note"><input type="hidden" name="csrf_token" value="{token}"><button>Save</button>
</form>
"""

setup_logging("notes")
app = FastAPI()
Hardening(app, HardeningSettings.from_env())


@app.get("/")
async def form(token: Annotated[str, Depends(csrf_token)]) -> HTMLResponse:
    return HTMLResponse(PAGE.format(token=token))


@app.post("/")
async def save(note: Annotated[str, Form()]) -> PlainTextResponse:
    return PlainTextResponse(f"saved {len(note)} characters")
