"""Entry point of ``python -m pipelines.sfod``."""

import sys

from vision_core.environment import enter


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    enter()
    from pipelines.sfod.config import SfodConfig
    from pipelines.sfod.verbs import OWN
    from vision_core.commands.main import run

    def build() -> object:
        from pipelines.sfod.pipeline import SfodPipeline

        return SfodPipeline()

    return run(SfodConfig, build, argv, OWN)


if __name__ == "__main__":
    sys.exit(main())
