"""Entry point of ``python -m pipelines.ovd``."""

import sys

from vision_core.environment import enter


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    enter()
    from pipelines.ovd.config import OvdConfig
    from pipelines.ovd.verbs import OWN
    from vision_core.commands.main import run

    def build() -> object:
        from pipelines.ovd.pipeline import OvdPipeline

        return OvdPipeline()

    return run(OvdConfig, build, argv, OWN)


if __name__ == "__main__":
    sys.exit(main())
