"""Mail over SMTP: addresses, which server and how it is protected, and one delivery."""
