"""Fine-tune a small causal language model token by token with four losses, on text it knows and on text it doesn't.

A Llama of about a million parameters is pre-trained on English documentation (the Python reference, torch's
docstrings), then fine-tuned with each loss on other documentation ("known") and on C++ headers ("unknown"). All of it
is on every machine where crossfade is installed. DFT's gradient is the expectation loss's: every token's gradient is
that of CE times its probability p. Where p is small at the start, there is little to learn from; the mixture keeps
CE's weight and adds p to it.

    python examples/causal_lm.py                        # some minutes on a CPU: one seed, one learning rate
    python examples/causal_lm.py --rates 5e-5 1.5e-4 5e-4 1.5e-3 5e-3 --seeds 0 1 2 --output results/causal_lm

With several rates each loss has its own: the first seed tries all, and the one with the best accuracy on validation
text serves the other seeds. Finished runs are in OUTPUT/results.csv and not done again.
"""

import argparse
import csv
import functools
import hashlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import texts
import tokenizers
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from crossfade import CrossfadeLoss, constant, cross_entropy, expectation, gradual
from crossfade.integrations.transformers import CrossfadeCallback

METHODS = {
    "CE": cross_entropy(),
    "DFT (= EL)": expectation(),
    "fade, F=0-0.5": gradual(),
    "mixture, F=0": constant(0.0),
}
DOMAINS = ("known", "unknown")


@dataclass(frozen=True)
class Scale:
    """Everything that sets the size of the study."""

    vocabulary: int = 1024
    context: int = 128
    width: int = 128
    layers: int = 4
    batch: int = 16
    pretrain_steps: int = 1200
    finetune_steps: int = 80
    pretrain_rate: float = 3e-3
    tokens: int = 400_000  # of each use at most
    held_out_blocks: int = 192  # for validation, and as many for the test


SMOKE = Scale(
    vocabulary=300,
    context=16,
    width=16,
    layers=1,
    batch=4,
    pretrain_steps=3,
    finetune_steps=2,
    tokens=2000,
    held_out_blocks=8,
)


def corpora() -> dict[str, list[str]]:
    """Return the documents by use. The hash of a document's text decides its use: the same on every machine."""
    documents = {"pretrain": [], "known train": [], "known held out": [], "unknown train": [], "unknown held out": []}
    for text in texts.reference() + texts.torch_docs():
        share = draw(text)
        documents["pretrain" if share < 0.6 else "known train" if share < 0.85 else "known held out"].append(text)
    for text in texts.headers():
        share = draw(text)
        documents["unknown train" if share < 0.85 else "unknown held out"].append(text)
    return documents


def draw(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def prepare(scale: Scale) -> dict[str, torch.Tensor]:
    """Return blocks of tokens by use, (blocks, context); byte pairs are learned on the pre-training text alone."""
    documents = corpora()
    bytepairs = ByteLevelBPETokenizer()
    bytepairs.train_from_iterator(documents["pretrain"], scale.vocabulary, special_tokens=["</s>"], show_progress=False)
    blocks = {}
    for use, parts in documents.items():
        parts = sorted(parts, key=draw)
        stream: list[int] = []
        for text in parts:
            stream += [*bytepairs.encode(text[:20_000]).ids, 0]
            if len(stream) > scale.tokens:  # the headers are ten times the documentation
                break
        count = len(stream) // scale.context
        blocks[use] = torch.tensor(stream[: count * scale.context]).view(count, scale.context)
    for domain in DOMAINS:
        held_out = blocks.pop(f"{domain} held out")[: 2 * scale.held_out_blocks]
        blocks[f"{domain} validation"], blocks[f"{domain} test"] = held_out[::2], held_out[1::2]
    return blocks


def network(scale: Scale) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=scale.vocabulary, hidden_size=scale.width, intermediate_size=scale.width * 11 // 4,
            num_hidden_layers=scale.layers, num_attention_heads=4, max_position_embeddings=scale.context,
            tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, use_cache=False,
        )
    )  # fmt: skip


def train(model, blocks: torch.Tensor, scale: Scale, schedule, steps: int, rate: float, seed: int) -> None:
    fade = CrossfadeCallback(CrossfadeLoss(schedule))
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=scale.batch, learning_rate=rate, seed=seed,
            lr_scheduler_type="cosine", warmup_steps=steps // 10, adam_beta2=0.98, report_to=[], disable_tqdm=True,
            save_strategy="no", logging_strategy="no", use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(
            model,
            options,
            train_dataset=[{"input_ids": block, "labels": block} for block in blocks],
            callbacks=[fade],
            compute_loss_func=fade.compute_loss,
        )
        trainer.train()


@torch.inference_mode()
def predict(model, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every next token's probability (float64), and whether it was the likeliest."""
    model.eval()
    p, hits = [], []
    for batch in blocks.split(16):
        logits = model(batch).logits[:, :-1].flatten(0, 1)
        target = batch[:, 1:].flatten()
        p.append(-torch.nn.functional.cross_entropy(logits.double(), target, reduction="none"))
        hits.append(logits.argmax(1) == target)
    return torch.cat(p).exp(), torch.cat(hits)


def scores(model, blocks: torch.Tensor, before: torch.Tensor) -> dict[str, float]:
    """Return cross entropy (nats), accuracy and mean p of the next tokens, and the share with p < 0.01.

    Also the accuracy on the tokens that had p < 0.01, 0.01 to 0.5, and 0.5 or more ``before`` the fine-tuning.
    """
    p, hits = predict(model, blocks)
    groups = {"rare": before < 0.01, "middle": (before >= 0.01) & (before < 0.5), "sure": before >= 0.5}
    found = {"ce": -p.log().mean(), "accuracy": hits.double().mean(), "p": p.mean()}
    found["small"] = (p < 0.01).double().mean()
    found |= {f"{name}_accuracy": hits[group].double().mean() for name, group in groups.items()}
    return {name: value.item() for name, value in found.items()}


def pretrained(scale: Scale, blocks: dict[str, torch.Tensor], folder: Path):
    """Return the pre-trained weights, computed once for the settings and the text."""
    content = hashlib.sha256(repr(scale).encode() + blocks["pretrain"].numpy().tobytes()).hexdigest()[:16]
    file = folder / f"pretrained-{content}.pt"
    if not file.exists():
        print(f"pre-training for {scale.pretrain_steps} steps", flush=True)
        model = network(scale)
        train(model, blocks["pretrain"], scale, cross_entropy(), scale.pretrain_steps, scale.pretrain_rate, 0)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file)
    return torch.load(file)


class Study:
    """The runs of the study; finished ones are kept in results.csv."""

    def __init__(self, scale: Scale, output: Path) -> None:
        self.scale, self.output, self.file = scale, output, output / "results.csv"
        self.rows = list(csv.DictReader(self.file.open())) if self.file.exists() else []
        before = output / "provenance.json"
        if before.exists() and json.loads(before.read_text())["scale"] != asdict(scale):
            raise SystemExit(f"{self.file} has runs of another scale: choose another --output")

    def find(self, domain: str, method: str, seed: int) -> list[dict[str, str]]:
        wanted = {"domain": domain, "method": method, "seed": str(seed)}
        return [row for row in self.rows if wanted.items() <= row.items()]

    def chosen_rate(self, domain: str, method: str, seed: int) -> float:
        return float(max(self.find(domain, method, seed), key=lambda row: float(row["validation_accuracy"]))["rate"])

    def run(self, seeds: list[int], rates: list[float]) -> None:
        for number, seed in enumerate(seeds):
            for domain, method in itertools.product(DOMAINS, ("before", *METHODS)):
                choices = rates if method != "before" else [0.0]
                if number > 0:
                    choices = [self.chosen_rate(domain, method, seeds[0])]
                done = {float(row["rate"]) for row in self.find(domain, method, seed)}
                for rate in choices:
                    if rate not in done:
                        self.one(domain, method, seed, rate)

    @functools.cached_property
    def prepared(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        blocks = prepare(self.scale)
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "provenance.json").write_text(json.dumps(provenance(self.scale, blocks), indent=1) + "\n")
        return blocks, pretrained(self.scale, blocks, Path(tempfile.gettempdir()) / "crossfade-causal-lm")

    @functools.cached_property
    def before(self) -> dict[str, torch.Tensor]:
        """Return each test token's probability before the fine-tuning."""
        blocks, weights = self.prepared
        model = network(self.scale)
        model.load_state_dict(weights)
        return {domain: predict(model, blocks[f"{domain} test"])[0] for domain in DOMAINS}

    def one(self, domain: str, method: str, seed: int, rate: float) -> None:
        blocks, weights = self.prepared
        started = time.perf_counter()
        model = network(self.scale)
        model.load_state_dict(weights)
        if method != "before":
            steps = self.scale.finetune_steps
            train(model, blocks[f"{domain} train"], self.scale, METHODS[method], steps, rate, seed)
        row = {"domain": domain, "method": method, "seed": seed, "rate": rate}
        found = scores(model, blocks[f"{domain} test"], self.before[domain])
        for name, text in (("validation_accuracy", f"{domain} validation"), ("known_accuracy", "known test")):
            found[name] = predict(model, blocks[text])[1].double().mean().item()
        row |= {name: f"{value:.6f}" for name, value in found.items()}
        self.rows.append({name: str(value) for name, value in row.items()})
        with self.file.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(row), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        seconds = time.perf_counter() - started
        print(
            f"{domain:8} {method:14} seed {seed} rate {rate:g}: accuracy {row['accuracy']} ({seconds:.0f} s)",
            flush=True,
        )


def provenance(scale: Scale, blocks: dict[str, torch.Tensor]) -> dict:
    parameters = sum(p.numel() for p in network(scale).parameters())
    return {
        "command": " ".join(["python", *sys.argv]),
        "scale": asdict(scale),
        "parameters": parameters,
        "tokens": {use: part.numel() for use, part in blocks.items()},
        "text": hashlib.sha256(b"".join(part.numpy().tobytes() for part in blocks.values())).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
    }


def commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return asked.stdout.strip() or "unknown"


def table(study: Study, seeds: list[int]) -> str:
    """Return a table of means over seeds at each loss's rate, ± the standard deviation if there are several."""
    columns = {
        "ce": "CE",
        "accuracy": "accuracy",
        "p": "mean p",
        "small": "tokens with p < 0.01",
        "rare_accuracy": "accuracy where p was < 0.01",
        "known_accuracy": "accuracy on known text",
    }
    lines = ["| text | loss | rate | " + " | ".join(columns.values()) + " |", "|---|---|---:|" + "---:|" * len(columns)]
    for domain, method in itertools.product(DOMAINS, ("before", *METHODS)):
        rate = study.chosen_rate(domain, method, seeds[0])
        chosen = [row for seed in seeds for row in study.find(domain, method, seed) if float(row["rate"]) == rate]
        cells = [f"{rate:g}" if rate else ""]
        for column in columns:
            values = [float(row[column]) for row in chosen]
            spread = f" ± {statistics.stdev(values):.4f}" if rate and len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        lines.append(f"| {domain} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4], help="learning rates of the fine-tuning")
    parser.add_argument("--output", type=Path, help="folder for results.csv; default: a temporary one")
    parser.add_argument("--smoke", action="store_true", help="a tiny model for a few steps")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        study = Study(SMOKE if arguments.smoke else Scale(), arguments.output or Path(temporary))
        study.run(arguments.seeds, arguments.rates)
        print(table(study, arguments.seeds))


if __name__ == "__main__":
    main()
