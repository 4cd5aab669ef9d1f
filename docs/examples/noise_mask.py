"""Train a classifier and a noise-mask policy for one step on tiles of a real image: python noise_mask.py."""

import torch
from torch.nn.functional import cross_entropy

from domainsight import NoiseMask, NoisePolicy
from vision_core.assets import photographs
from vision_core.backbones.networks import build_backbone
from vision_core.images.reading import read_image

torch.manual_seed(0)
image = torch.from_numpy(read_image(photographs()["colon"])).permute(2, 0, 1) / 255  # (3, 512, 512)
tiles = image.unfold(1, 128, 128).unfold(2, 128, 128).permute(1, 2, 0, 3, 4).flatten(0, 1)  # (16, 3, 128, 128)
images = (tiles - 0.3162) / 0.3213  # normalised, so that hidden parts fade to mean grey
labels = torch.arange(16) // 8  # upper or lower half of the image

classifier = build_backbone("resnet10t", 2)
policy = NoisePolicy(grid=16, input_px=112)
mask = NoiseMask(grid=16, kernel=13, sigma=6.0, image_px=128)
optimizer = torch.optim.SGD(
    [{"params": classifier.parameters(), "lr": 0.1}, {"params": policy.parameters(), "lr": 0.01}], momentum=0.9
)

drawn = policy.draw(images)  # a Beta distribution for each cell, and one sample of all cells (16, 16²)
masks = mask(drawn.sample)  # (16, 1, 128, 128)
costs = cross_entropy(classifier(images * masks), labels, reduction="none")  # (16,)
rewards = -costs.detach()
advantages = rewards - rewards.mean()
policy_loss = -(advantages * drawn.log_density().mean(dim=1)).mean()  # REINFORCE; the mean over cells
before = policy.distributions(images).mean()  # (16, 16²)
optimizer.zero_grad()
(costs.mean() + policy_loss).backward()  # the two graphs are disjoint: a sample carries no gradient
optimizer.step()

print(f"masks from {masks.min():.2f} to {masks.max():.2f}")
print(f"mean reward {rewards.mean():.3f}, policy loss {policy_loss.item():.4f}")
print(f"largest change of an expected cell {(policy.distributions(images).mean() - before).abs().max():.1e}")
