"""Notes: a Flask application that uses mks_hardening, as the tutorial makes one."""

from flask import Flask, render_template_string, request

from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.settings import HardeningSettings

PAGE = """<!doctype html><title>Note</title>
<form method="post">
  <input name="note"><input type="hidden" name="csrf_token" value="{{ current_csrf_token() }}"><button>Save</button>
</form>
"""

app = Flask(__name__)
Hardening(app, HardeningSettings.from_env())


@app.route("/", methods=["GET", "POST"])
def note():
    if request.method == "POST":
        return f"saved {request.form['note']} of {request.remote_addr} by {request.scheme}"
    return render_template_string(PAGE)
