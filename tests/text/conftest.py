from __future__ import annotations

import re

import pandas as pd
import pytest
import torch
from sklearn import datasets

from crossfade.lab.data.texts import TextSet, load_texts


@pytest.fixture(scope="session")
def sentences() -> pd.DataFrame:
    """Real sentences: scikit-learn's descriptions of its data sets, and which set each is about."""
    rows = []
    for name in ("iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud"):
        text = getattr(datasets, f"load_{name}")().DESCR
        parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n|(?<=[.:])\s", text)]
        rows += [(part, name) for part in parts if len(part.split()) > 2]
    frame = pd.DataFrame(rows, columns=["sentence", "about"])
    return frame[frame["about"].isin(["iris", "wine", "breast_cancer", "digits"])].reset_index(drop=True)


@pytest.fixture
def table(sentences, tmp_path):
    path = tmp_path / "sentences.csv"
    sentences.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def few(sentences, tmp_path_factory) -> TextSet:
    """A third of the sentences, for networks that take their time."""
    path = tmp_path_factory.mktemp("texts") / "few.csv"
    sentences[::3].to_csv(path, index=False)
    return load_texts(path, ["sentence"], "about")


@pytest.fixture(scope="session")
def bert(sentences, tmp_path_factory) -> str:
    """A BERT with random weights, small enough to be trained in a second, and its own tokenizer."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "bert-tiny"
    words = sorted({word for text in sentences["sentence"] for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer_of(vocabulary).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return str(folder)


def tokenizer_of(vocabulary):
    """BERT's tokenizer with these tokens; transformers' own classes take them in another way in each version."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    pieces = BertWordPieceTokenizer(vocab={token: at for at, token in enumerate(vocabulary)})
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


@pytest.fixture(name="tokenizer_of")
def _tokenizer_of():
    return tokenizer_of


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
