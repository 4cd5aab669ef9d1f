"""Adapt a detector of tree crowns to a rendered fog in plain PyTorch: python adapt_detector.py."""

from pathlib import Path

import torch

from domainsight import MeanTeacher, SfodPredictor, StrongView, lpld_loss
from pipelines.sfod.demo.shifts import fog
from pipelines.sfod.methods.lpld import teacher_boxes
from vision_core.assets import tree_crowns
from vision_core.detection.pseudo_labels import confident_targets
from vision_core.detection.weights.bundles import load_detector
from vision_core.images.reading import read_image

bundle = Path(__file__).resolve().parents[2] / "demos" / "checkpoints" / "sfod-source"
tile = fog(read_image(tree_crowns()["yell_small"].image_path)[700:956, 900:1156], 0)  # (256, 256, 3)
print("trees found by the source model:", len(SfodPredictor.from_checkpoint(str(bundle))(tile).above(0.5)))

student, card = load_detector(bundle)
teacher = MeanTeacher(student)
student.requires_grad_(True).train()
optimizer = torch.optim.SGD(student.parameters(), lr=1e-3, momentum=0.9)
weak = torch.from_numpy(tile).permute(2, 0, 1)
for step in range(3):
    with torch.no_grad():
        maps = teacher.module.features([weak])
        [proposals] = teacher.module.propose(maps)
        features = teacher.module.embed(teacher.module.pool(maps, [proposals.boxes]))  # (N, D)
        logits, deltas = teacher.module.score(features)
        labels = confident_targets(teacher.module.select(maps, [proposals], logits, deltas)[0], threshold=0.6)
        boxes = teacher_boxes(proposals.boxes, logits, teacher.module.decode(deltas, proposals.boxes))
    maps = student.features([torch.from_numpy(StrongView()(tile, seed=step)).permute(2, 0, 1)])
    own_features = student.embed(student.pool(maps, [proposals.boxes]))
    distillation = lpld_loss(student.score(own_features)[0], own_features, logits, features, boxes, labels.boxes)
    loss = sum(student.losses(maps, [labels]).values()) + distillation
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    teacher.update(student, keep_rate=0.9)
    print(f"step {step}: {len(labels.labels)} pseudo labels, loss {loss:.3f}, distillation {distillation:.4f}")
