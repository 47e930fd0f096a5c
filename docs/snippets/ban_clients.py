from mks_hardening.events import add_observer
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import BanList, BanRule, ClientRules, ClientRulesMiddleware


def application(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"there is no page ", environ["PATH_INFO"].encode()]


bans = BanList(
    [
        BanRule(
            "probing", strikes=20, within=60, when=lambda path, status: (status, path[-4:]) == (404, ".php")
        ),
        BanRule("forged", strikes=10, when={"RequestRefused.csrf"}),
        BanRule("guessing", strikes=30, when={"SignInEvent.refused", "SignInEvent.factor_refused"}),
    ]
)
add_observer(bans.observe)
app = ClientRulesMiddleware(application, bans=bans, rules=ClientRules(deny=["198.51.100.0/24"]))

client = {"REMOTE_ADDR": "203.0.113.7"}
statuses = [call_wsgi(app, path="/wp-login.php", environ=client).status for _ in range(21)]
print(statuses.count(404), "requests passed, then", statuses[-1])
print(bans.bans()[0].client, "is banned:", bans.bans()[0].reason)
