"""``python -m pipelines.ultrasound``: the verbs of this task."""

import sys

from vision_core.environment import enter


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    enter()
    from pipelines.ultrasound.config import UltrasoundConfig
    from pipelines.ultrasound.verbs import OWN
    from vision_core.commands.main import run

    def build() -> object:
        from pipelines.ultrasound.pipeline import UltrasoundPipeline

        return UltrasoundPipeline()

    return run(UltrasoundConfig, build, argv, OWN)


if __name__ == "__main__":
    sys.exit(main())
