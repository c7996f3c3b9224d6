"""Real text that is on every machine where crossfade is installed: nothing is downloaded."""

import re

from crossfade.lab.data.shipped import headers as headers
from crossfade.lab.data.shipped import reference as reference
from crossfade.lab.data.shipped import torch_docs as torch_docs


def questions() -> list[dict[str, str]]:
    """Return pairs of a function's signature and the first sentence of its description."""
    pairs = []
    for text in torch_docs():
        match = re.match(r"^(\w+\(.*?\)(?: -> [\w, ()]+)?)\n\s*\n(.+?\.)(?:\s|$)", text, re.DOTALL)
        if match and len(match[1]) < 100 and len(match[2]) < 200:
            pairs.append({"prompt": match[1] + "\n", "completion": " ".join(match[2].split())})
    return pairs
