import importlib
import json
import subprocess
import sys
from io import StringIO
from urllib.parse import urlencode

from mks_hardening.testing import call_wsgi


def facts(name):
    app = importlib.import_module(name).application
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.management import call_command

    # Quick, for the hundreds of guesses below. Never in a project.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    call_command("migrate", verbosity=0)
    for user in ("alice", "bob", "carol", "dora"):
        User.objects.create_user(user, password="correct horse")

    def ask(user, *, right=False, address="192.0.2.1", times=1):
        password = "correct horse" if right else "wrong"
        form = urlencode({"name": user, "password": password}).encode()
        responses = [
            call_wsgi(
                app,
                "/sign_in",
                method="POST",
                headers={
                    "Host": "localhost",
                    "Origin": "http://localhost",
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Content-Length": str(len(form)),
                },
                body=form,
                environ={"REMOTE_ADDR": address},
            )
            for _ in range(times)
        ]
        return " ".join(str(response.status) for response in responses), responses[-1]

    yield "four wrong passwords", ask("alice", times=4)[0]
    yield "the fifth and the sixth", ask("alice", times=2)[0]
    yield "then the right one", ask("alice", right=True)[0]
    yield "the right one from another address", ask("alice", right=True, address="198.51.100.1")[0]
    yield "another name", ask("bob", right=True)[0]
    yield "a name without an account", ask("nobody", times=4)[0]
    commands = {"before": ("axes_reset_username", "alice"), "after": ("unlock_login", "alice")}
    options = {} if name == "before" else {"address": "192.0.2.1"}
    call_command(*commands[name], **options, stdout=StringIO())
    yield "the right one after unlocking", ask("alice", right=True)[0]
    yield "ten right ones", ask("bob", right=True, times=10)[0].replace(" 200", "")
    _, last = ask("carol", times=6)
    yield "a refusal says when to retry", last.header("Retry-After") is not None
    yield "CAROL is counted as carol", ask("CAROL")[0] == "429"
    addresses = [f"203.0.113.{n}" for n in range(100)]
    guesses = [ask("dora", address=address)[0] for address in addresses]
    yield "guesses from 100 addresses that are checked", guesses.count("401")
    names = [ask(f"user{n}", address="198.18.0.1")[0] for n in range(100)]
    yield "names that one address tries in a minute", names.count("401")


if sys.argv[1:]:  # each side in a process of its own: Django has one configuration
    print(json.dumps([*facts(sys.argv[1])]))
else:
    sides = [
        json.loads(subprocess.check_output([sys.executable, __file__, side]))  # noqa: S603 - this program
        for side in ("before", "after")
    ]
    for (what, old), (_, new) in zip(*sides, strict=True):
        print(f"{what}: {old} | {new}")
