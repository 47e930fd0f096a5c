"""建設土木ナレッジシステム, the reference application that uses all six areas of ``mks_hardening``."""
