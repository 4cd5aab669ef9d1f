"""The hub: every demo page under one address. ``python -m apps``."""

from vision_core.environment import enter

if __name__ == "__main__":
    enter()
    from apps.hub import hub
    from apps.serving import main

    raise SystemExit(main(hub, "All demo pages under one address.", has_slides=True))
