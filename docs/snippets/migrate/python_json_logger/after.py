from mks_hardening.logging import JsonFormatter

formatter = JsonFormatter(
    "%(asctime)s %(levelname)s %(message)s",
    schema="python-json-logger",
    rename_fields={"levelname": "severity"},
    timestamp=True,
)
