"""Who somebody is: accounts, signing in, tokens of programs."""
