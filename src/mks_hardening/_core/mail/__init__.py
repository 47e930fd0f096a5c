"""Mail over SMTP: addresses, server options, TLS and delivery."""
