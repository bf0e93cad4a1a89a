"""Exit 0 when a URL answers within some seconds. Usage: reachable.py URL SECONDS."""

import sys
import urllib.request

try:
    with urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])):  # noqa: S310  # the caller's URL
        pass
except (OSError, ValueError):
    sys.exit(1)
