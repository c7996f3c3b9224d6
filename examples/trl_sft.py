"""TRL's SFTTrainer: from a signature in torch's documentation to the sentence that describes it.

Prompts are ignored and the examples packed; TRL does both.

    python examples/trl_sft.py
"""

import argparse
import tempfile
from pathlib import Path

import texts
from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from crossfade import CrossfadeLoss, gradual
from crossfade.integrations.trl import CrossfadeCallback

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--smoke", action="store_true", help="a few steps")
args = parser.parse_args()
pairs = texts.questions()[: 40 if args.smoke else None]

with tempfile.TemporaryDirectory() as folder:
    bytepairs = ByteLevelBPETokenizer()
    bytepairs.train_from_iterator(
        (text for pair in pairs for text in pair.values()), 1024, special_tokens=["<pad>", "</s>"], show_progress=False
    )
    bytepairs.save(str(Path(folder) / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(folder) / "tokenizer.json"), pad_token="<pad>", eos_token="</s>"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    data = Dataset.from_list(pairs).train_test_split(0.1, seed=0)
    trainer = SFTTrainer(
        LlamaForCausalLM(config),
        args=SFTConfig(
            output_dir=folder, num_train_epochs=1 if args.smoke else args.epochs, per_device_train_batch_size=4,
            learning_rate=3e-3, max_length=128, packing=True, eval_packing=False, bf16=False, report_to=[],
            disable_tqdm=True, save_strategy="no", gradient_checkpointing=False, logging_steps=10,
        ),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=tokenizer,
        callbacks=[CrossfadeCallback(CrossfadeLoss(gradual()))],  # the one line
    )  # fmt: skip
    trainer.train()
    print(f"held-out token accuracy {trainer.evaluate()['eval_mean_token_accuracy']:.4f}")
