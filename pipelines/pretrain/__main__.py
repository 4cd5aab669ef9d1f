"""``python -m pipelines.pretrain``: the verbs of this task."""

import sys

from vision_core.environment import enter


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    enter()
    from pipelines.pretrain.config import PretrainConfig
    from pipelines.pretrain.verbs import OWN
    from vision_core.commands.main import run

    def build() -> object:
        from pipelines.pretrain.pipeline import PretrainPipeline

        return PretrainPipeline()

    return run(PretrainConfig, build, argv, OWN)


if __name__ == "__main__":
    sys.exit(main())
