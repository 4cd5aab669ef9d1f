"""Whether the tests run in continuous integration."""

import os


def is_ci() -> bool:
    """Tell whether a continuous-integration service runs the tests (``CI=true``)."""
    return os.environ.get("CI", "").lower() in {"1", "true"}
