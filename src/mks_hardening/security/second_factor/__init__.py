"""The second factor of an account: enrolment, codes, recovery, remembered devices."""
