"""The reference application under load: what ``tools/bench_app.py`` measures, and how."""
