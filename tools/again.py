"""Runs the tests that failed beside others once more, each alone: `again.py CODE`, the exit code of the run they failed in.

A machine that is busy with everything at once is not what a test asks about, but what fails only there is told by name: it is
a defect of the test, or a race of the product's, and has to be mended. More than a few failures are not run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 4
FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main(code: int) -> int:
    """The exit code: that of the first run, 0 if all that failed passes alone."""
    if code != 1:  # of pytest: some tests failed; anything else is no verdict of a test
        return code
    names = list(json.loads(FAILED.read_text()))
    if not 0 < len(names) <= MOST:
        print(f"{len(names)} tests failed: too many to run them again")
        return code
    print("\nonce more, alone:", *names, sep="\n  ", flush=True)
    for name in names:
        if subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name], check=False).returncode:
            return code
    print("\nfailed among others and passed alone, to be mended:", *names, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
