"""Make the data of a study into a folder, and print the hash of its protocol: what `benchmarks.restamp` compares.

``python -m benchmarks.study_data sfod-trees --out DIR``; without ``--out`` only the hash is printed.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.ovd.scenes import tables as ovd_scenes_tables
from benchmarks.pretrain import tables as pretrain_tables
from benchmarks.sfod import tables as sfod_tables
from benchmarks.ultrasound import tables as ultrasound_tables
from benchmarks.ultrasound import thin_tables as ultrasound_thin_tables
from benchmarks.wsi import longer_tables as wsi_longer_tables
from benchmarks.wsi import tables as wsi_tables

_TABLES = (
    sfod_tables,
    ovd_scenes_tables,
    wsi_tables,
    wsi_longer_tables,
    pretrain_tables,
    ultrasound_tables,
    ultrasound_thin_tables,
)
STUDIES = {each.STUDY.name: each.STUDY for each in _TABLES}


def make_data(study: str, folder: Path) -> None:
    """Write all data that a study trains and scores on; the makers are imported here, as they need every library."""
    if study.startswith("sfod"):
        from pipelines.sfod.demo.demo_data import make_demo_data

        make_demo_data(folder)
    elif study.startswith("ovd"):
        from benchmarks.ovd.scenes.data import SCENES, make_scenes

        for world in SCENES:
            make_scenes(folder, world, STUDIES[study].protocol())
    elif study.startswith("wsi"):
        from pipelines.wsi.demo.demo_data import make_demo_data as make_slides

        make_slides(folder)
    elif study.startswith("ultrasound"):
        from benchmarks.ultrasound.phantom import make_frames

        make_frames(folder, STUDIES[study].protocol())
    else:
        from pipelines.pretrain.demo.small_real import make_small_real

        make_small_real(folder, STUDIES[study].protocol()["longest_px"])


def main() -> int:
    """Print the hash, and make the data where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to make the data")
    arguments = parser.parse_args()
    if arguments.out:
        make_data(arguments.study, arguments.out)
    print(STUDIES[arguments.study].protocol_hash())
    return 0


if __name__ == "__main__":
    sys.exit(main())
