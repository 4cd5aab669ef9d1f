"""The terms of WSCoL on a tile of tree crowns in plain PyTorch, five lines a step: python contrast_categories.py."""

from pathlib import Path

import torch

from domainsight import ClassMemory, MappingNetwork, MeanTeacher, StrongView, wscol_loss
from pipelines.sfod.demo.shifts import fog
from vision_core.assets import tree_crowns
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.detection.weights.bundles import load_detector
from vision_core.images.reading import read_image

bundle = Path(__file__).resolve().parents[2] / "demos" / "checkpoints" / "sfod-source"
tile = fog(read_image(tree_crowns()["yell_small"].image_path)[700:956, 900:1156], 0)  # (256, 256, 3)
student, _ = load_detector(bundle)
teacher = MeanTeacher(student).module
mapping = MappingNetwork(student.map_shape[0], student.embedded_dim)
memory = ClassMemory(student.num_classes, student.map_shape, mapping.dim)
optimizer = torch.optim.SGD([*student.requires_grad_(True).train().parameters(), *mapping.parameters()], lr=1e-3)
for step in range(3):
    with torch.no_grad():
        maps = teacher.features([torch.from_numpy(tile).permute(2, 0, 1)])
        [proposals] = teacher.propose(maps)
        regions = teacher.pool(maps, [proposals.boxes])  # (N, C, 7, 7)
        labels = confident_targets(teacher.detect(maps, [proposals])[0], threshold=0.6)
        teacher_logits = teacher.score(teacher.embed(regions))[0]
    strong = student.features([torch.from_numpy(StrongView()(tile, seed=step)).permute(2, 0, 1)])

    memory.take_in(student.pool(maps, [labels.boxes]), labels.labels, mapping)
    own = student.pool(strong, [proposals.boxes])
    logits = student.score(student.embed(own))[0]
    taught = mapping(regions)
    loss = wscol_loss(logits, mapping(own), teacher_logits, taught, proposals, labels, memory.prototypes)

    optimizer.zero_grad()
    (loss + sum(student.losses(strong, [labels]).values())).backward()
    optimizer.step()
    print(f"step {step}: {len(labels.labels)} pseudo labels, {int(memory.bank.pushed)} remembered, WSCoL {loss:.4f}")
