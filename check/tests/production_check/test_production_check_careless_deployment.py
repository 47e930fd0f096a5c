"""A deployment as tutorials show it: a Flask application with Celery behind nginx and gunicorn."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from mks_check import CheckReport, check, render_report

SITE = """
server {
    listen 80;
    listen [::]:80;
    server_name api.example.com;
    location /.well-known/acme-challenge/ { root /var/www/certbot; }
    location / { return 301 https://$host$request_uri; }
}
server {
    listen 443 ssl http2;
    listen [::]:443 ssl http2;
    server_name api.example.com;
    ssl_certificate /etc/letsencrypt/live/api.example.com/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/api.example.com/privkey.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers off;
    ssl_session_cache shared:SSL:10m;
    ssl_stapling on;
    ssl_stapling_verify on;
    add_header Strict-Transport-Security "max-age=31536000; includeSubDomains" always;
    add_header X-Frame-Options "DENY" always;
    add_header X-Content-Type-Options "nosniff" always;
    add_header X-XSS-Protection "1; mode=block" always;
    add_header Referrer-Policy "strict-origin-when-cross-origin" always;
    location / {
        proxy_pass http://127.0.0.1:8000;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-Port $server_port;
        proxy_connect_timeout 60s;
        proxy_send_timeout 60s;
        proxy_read_timeout 60s;
        proxy_buffer_size 4k;
        proxy_buffers 8 4k;
    }
    location /static/ {
        alias /var/www/knowledge/static/;
        expires 1y;
        add_header Cache-Control "public, immutable";
    }
    access_log /var/log/nginx/knowledge-access.log;
    error_log /var/log/nginx/knowledge-error.log;
}
"""
GUNICORN = """
import multiprocessing
import os

workers = int(os.environ.get("MKS_GUNICORN_WORKERS", multiprocessing.cpu_count() * 2 + 1))
worker_class = "sync"
threads = int(os.environ.get("MKS_GUNICORN_THREADS", 2))
timeout = int(os.environ.get("MKS_GUNICORN_TIMEOUT", 30))
keepalive = 5
bind = ["0.0.0.0:80", "0.0.0.0:443"]
certfile = os.environ.get("MKS_SSL_CERT_PATH", "/etc/letsencrypt/live/api.example.com/fullchain.pem")
keyfile = os.environ.get("MKS_SSL_KEY_PATH", "/etc/letsencrypt/live/api.example.com/privkey.pem")
ssl_version = 5
accesslog = "/var/log/knowledge/gunicorn-access.log"
errorlog = "/var/log/knowledge/gunicorn-error.log"
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(D)s'
"""
LOGROTATE = """
/var/log/knowledge/*.log {
    daily                    # every day
    missingok               # no error without a file
    rotate 30
    compress
    create 0640 mks mks
    sharedscripts
    postrotate
        systemctl reload knowledge.service || true
    endscript
}
"""
WORKER = """
[Unit]
Description=worker
After=network.target redis.service

[Service]
User=mks
Environment="PATH=/var/www/knowledge/venv/bin"
ExecStart=/var/www/knowledge/venv/bin/celery -A celery_app worker --loglevel=info
Restart=always
"""


def flask_app() -> Any:
    from flask import Flask

    app = Flask("knowledge")
    app.config.update(
        SECRET_KEY="Zk3vQ8xT1mWc7LrYp0sBn5JdHf2GuEa9",
        CELERY={"task_serializer": "json", "accept_content": ["json"], "task_time_limit": 3600},
        SESSION_TYPE="redis",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=timedelta(hours=24),
        RATELIMIT_STORAGE_URI="memory://",
        SQLALCHEMY_DATABASE_URI="postgresql://postgres:password@localhost:5432/knowledge",
        SQLALCHEMY_ENGINE_OPTIONS={
            "pool_size": 20,
            "max_overflow": 40,
            "connect_args": {"connect_timeout": 10, "options": "-c statement_timeout=30000"},
        },
    )

    @app.post("/api/knowledge")
    def create() -> str:
        return ""

    return app


def report(folder: Path, lang: str = "en") -> CheckReport:
    texts = {
        "nginx/sites-available/knowledge": SITE,
        "gunicorn_config.py": GUNICORN,
        "logrotate.d/knowledge": LOGROTATE,
        "systemd/knowledge-celery.service": WORKER,
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    environ = {
        "DATABASE_URL": "postgresql://postgres:password@localhost:5432/knowledge",
        "MKS_REDIS_URL": "redis://localhost:6379/0",
        "MKS_SMTP_HOST": "smtp.example.com",
    }
    return check(environ=environ, app=flask_app(), files=[folder], lang=lang)


def test_at_least_25_different_checks_find_something(tmp_path: Path) -> None:
    found = {finding.id for finding in report(tmp_path).findings}
    assert len(found) >= 25, sorted(found)
    assert {
        "MKS-DEP-002",
        "MKS-DEP-003",
        "MKS-DEP-007",
        "MKS-DEP-008",
        "MKS-DEP-009",
        "MKS-DEP-010",
        "MKS-DEP-015",
        "MKS-DEP-035",
        "MKS-DEP-036",
        "MKS-DEP-051",
        "MKS-DEP-068",
        "MKS-APP-007",
        "MKS-APP-025",
        "MKS-APP-026",
        "MKS-SET-012",
    } <= found


def test_each_finding_of_a_file_names_the_line(tmp_path: Path) -> None:
    lines = {finding.id: finding.line for finding in report(tmp_path).findings if finding.file}
    site = SITE.split("\n")
    assert site[lines["MKS-DEP-009"] - 1].strip().startswith("location / { return 301")
    assert "$proxy_add_x_forwarded_for" in site[lines["MKS-DEP-002"] - 1]
    assert GUNICORN.split("\n")[lines["MKS-DEP-035"] - 1] == "ssl_version = 5"
    assert "# every day" in LOGROTATE.split("\n")[lines["MKS-DEP-051"] - 1]


def test_the_password_is_in_no_report(tmp_path: Path) -> None:
    for lang in ("en", "ja"):
        for style in ("text", "json", "sarif", "github"):
            assert "postgres:password" not in render_report(report(tmp_path, lang), style=style, lang=lang)
