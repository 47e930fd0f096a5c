"""Run one fuzz target: ``python tests/fuzz/run.py fuzz_codec -runs=100000 -max_len=512`` (needs atheris).

A target is a module here with ``one_input(data: bytes)``, which raises when something is wrong.
"""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    """Instrument the package, then fuzz the target named first; the rest goes to libFuzzer."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["mks_hardening"]):
        target = importlib.import_module(name)
    atheris.Setup(sys.argv, target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
