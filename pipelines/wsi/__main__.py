"""``python -m pipelines.wsi``: the verbs of this task."""

import sys

from vision_core.environment import enter


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    enter()
    from pipelines.wsi.config import WsiConfig
    from pipelines.wsi.verbs import OWN
    from vision_core.commands.main import run

    def build() -> object:
        from pipelines.wsi.pipeline import WsiPipeline

        return WsiPipeline()

    return run(WsiConfig, build, argv, OWN)


if __name__ == "__main__":
    sys.exit(main())
