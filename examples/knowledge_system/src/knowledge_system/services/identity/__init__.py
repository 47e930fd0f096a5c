"""Identity: accounts, sign-in, API tokens, rate limits."""
