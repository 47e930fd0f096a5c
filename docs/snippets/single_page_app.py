from mks_hardening.compose import harden_wsgi
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import CORSPolicy


def app(_environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b'{"saved": true}']


app = harden_wsgi(
    app,
    HardeningSettings.from_env(environ={"MKS_ENV": "development"}),
    cors_policy=CORSPolicy(["https://app.example.com"], credentials=True, methods=["GET", "POST"]),
)

if __name__ == "__main__":
    for origin in ["https://app.example.com", "https://evil.example"]:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = call_wsgi(app, "/api/note", method="OPTIONS", headers=asked)
        sent = {"Origin": origin, "Cookie": "theme=dark", "Content-Type": "application/json"}
        response = call_wsgi(app, "/api/note", method="POST", headers=sent, body=b"{}")
        print(origin, preflight.status, response.status, response.header("Access-Control-Allow-Origin"))
