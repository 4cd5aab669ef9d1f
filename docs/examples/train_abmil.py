"""Train ABMIL in plain PyTorch on made bags of features, then look at its attention: python train_abmil.py."""

import torch
from torch import Tensor
from torch.nn import functional

from domainsight import ABMIL

IN_DIM, BAGS, EPOCHS = 64, 40, 5
torch.manual_seed(0)
torch.set_num_threads(1)  # threads cost more than they save on matrices this small


def make_bag(label: int) -> tuple[Tensor, Tensor]:
    """Features (N, IN_DIM) of 40 to 120 tiles, and which tiles show a lesion: a tenth of a positive bag."""
    tiles = int(torch.randint(40, 121, ()))
    lesion = torch.rand(tiles) < 0.1 * label
    return torch.randn(tiles, IN_DIM) + 1.5 * lesion[:, None], lesion


labels = torch.arange(BAGS) % 2
bags = [make_bag(int(label))[0] for label in labels]
model = ABMIL(in_dim=IN_DIM, num_classes=2, embed_dim=128)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(EPOCHS):
    total = 0.0
    for place in torch.randperm(BAGS).tolist():
        loss = functional.cross_entropy(model(bags[place]), labels[place])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += float(loss.detach())
    print(f"epoch {epoch + 1}: loss {total / BAGS:.3f}")

# New bags of different size, as a padded batch (B, N, IN_DIM) with a mask (B, N).
model.eval()
made = [make_bag(int(label)) for label in labels]
features = torch.nn.utils.rnn.pad_sequence([bag for bag, _ in made], batch_first=True)
lesions = torch.nn.utils.rnn.pad_sequence([lesion for _, lesion in made], batch_first=True)
mask = torch.arange(features.shape[1]) < torch.tensor([[len(bag)] for bag, _ in made])
with torch.inference_mode():
    logits, attention = model(features, mask, return_attention=True)  # (B, 2), (B, N)
accuracy = float((logits.argmax(dim=1) == labels).double().mean())
highest = attention.argmax(dim=1)  # the tile of each bag with the highest attention
found = float(lesions[labels == 1].gather(1, highest[labels == 1, None]).double().mean())
print(f"new bags classified correctly: {accuracy:.2f}")
print(f"positive bags whose tile of highest attention shows a lesion: {found:.2f}")
