from pythonjsonlogger.json import JsonFormatter

formatter = JsonFormatter(
    "%(asctime)s %(levelname)s %(message)s", rename_fields={"levelname": "severity"}, timestamp=True
)
