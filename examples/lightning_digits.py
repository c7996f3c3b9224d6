"""Lightning: the criterion is an attribute of the module, and one callback moves it.

python examples/lightning_digits.py
"""

import argparse

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from crossfade import CrossfadeLoss, gradual
from crossfade.integrations.lightning import CrossfadeCallback


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.criterion = CrossfadeLoss(gradual())

    def training_step(self, batch, batch_idx):
        inputs, target = batch
        return self.criterion(self.network(inputs), target)

    def validation_step(self, batch, batch_idx):
        inputs, target = batch
        # Monitor the accuracy: the loss changes its scale as it fades.
        self.log("val_accuracy", (self.network(inputs).argmax(1) == target).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--smoke", action="store_true", help="one epoch")
args = parser.parse_args()

pl.seed_everything(0)
X, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y))
train, validation = random_split(data, [0.7, 0.3])
trainer = pl.Trainer(
    max_epochs=1 if args.smoke else args.epochs,
    callbacks=[CrossfadeCallback()],
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(Classifier(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(validation, batch_size=256))
print(f"validation accuracy {trainer.callback_metrics['val_accuracy']:.4f}")
