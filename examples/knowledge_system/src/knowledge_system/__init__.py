"""建設土木ナレッジシステム: the reference application that composes all six areas of ``mks_hardening``."""
