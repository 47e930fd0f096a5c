"""A certificate for the name of the rendered host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from deploy_host import HOST


class Certificates:
    """For the name of the host, from an authority of its own."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        now = datetime.now(UTC)
        issued = authority.issue_cert(
            HOST, "www.example.test", not_before=now - timedelta(days=1), not_after=now + timedelta(days=90)
        )
        self.ca_file, self.cert_file, self.key_file = (
            folder / name for name in ("ca.pem", "site.pem", "site.key")
        )
        authority.cert_pem.write_to_path(self.ca_file)
        issued.cert_chain_pems[0].write_to_path(self.cert_file)
        issued.private_key_pem.write_to_path(self.key_file)
