"""Load tests of the example application, run by ``tools/bench_app.py``."""
