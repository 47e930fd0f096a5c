import sys

from mks_hardening.logging import SecretRedactor, setup_logging

redactor = SecretRedactor(
    keys=["employee_number", "salary"],  # names of fields, in any spelling
    patterns=[r"\bEMP-(?P<secret>\d{6})\b"],  # in any text; without the group, the whole match is replaced
)
logger = setup_logging("shop", redactor=redactor, max_record_bytes=16_384)
logger.info("raised for EMP-204711", extra={"employeeNumber": "204711", "salary": 5200, "site": "north"})
sys.stdout.flush()
