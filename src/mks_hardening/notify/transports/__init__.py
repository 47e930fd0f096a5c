"""How a finished message leaves the process: SMTP and HTTP, and what their answers mean."""
