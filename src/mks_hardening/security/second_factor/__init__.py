"""Second factors of accounts: TOTP, passkeys, recovery codes, remembered devices."""
