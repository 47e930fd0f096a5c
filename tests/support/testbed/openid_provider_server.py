"""A certified OpenID provider (oidc-provider for Node.js), on a page of which anybody signs in."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

from testbed import services
from testbed.process import ServerProcess

_HERE = Path(__file__).parents[1] / "openid_provider"
# tools/get_servers.py installs them there.
_MODULES = Path(__file__).parents[3] / "build/openid-provider/node_modules"

CLIENT, SECRET = "knowledge", "made-up secret: of the tests"


class OpenIDProviderServer:
    """One provider with one client.

    Args:
        folder: working directory, with the log.
        port: free port.
        site: address of the application, without a slash at the end.
    """

    def __init__(self, folder: Path, port: int, site: str) -> None:
        if not _MODULES.exists():
            services.unavailable("oidc-provider", "tools/get_servers.py installs it with npm")
        folder.mkdir()
        (folder / "node_modules").symlink_to(_MODULES)
        program = shutil.copy(_HERE / "provider.mjs", folder)
        client = {
            "client": CLIENT,
            "secret": SECRET,
            "redirect": f"{site}/sign-in/provider/callback",
            "afterwards": f"{site}/sign-in?done=signed-out",
        }
        self.issuer = f"http://127.0.0.1:{port}"
        self.process = ServerProcess(
            [services.program("node"), str(program), str(port), json.dumps(client)],
            log=folder / "provider.log",
            ready=self._responds,
            cwd=folder,
        )

    def _responds(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.issuer}/.well-known/openid-configuration", timeout=5):
                return True
        except OSError:
            return False
