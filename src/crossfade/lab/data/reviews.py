"""Women's Clothing E-Commerce Reviews (Agarap 2018): the rating, 1 to 5, from the text of the review."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crossfade.errors import UserError
from crossfade.lab.data.texts import TextSet, load_texts

__all__ = ["find_reviews", "load_reviews"]


def find_reviews(data_dir: Path) -> Path | None:
    """The CSV in ``data_dir`` or its folder ``reviews``."""
    return next((path for place in ("reviews", ".") for path in sorted((data_dir / place).glob("*Reviews*.csv"))), None)


def load_reviews(data_dir: Path) -> TextSet:
    """The 22,641 reviews that have a text.

    Raises:
        UserError: the file isn't there, or isn't that table.
    """
    path = find_reviews(data_dir)
    if path is None:
        raise UserError(
            f'reviews: no *Reviews*.csv in {data_dir / "reviews"}; get "Women\'s Clothing E-Commerce Reviews" from '
            "Kaggle (nicapotato/womens-ecommerce-clothing-reviews)"
        )
    return replace(load_texts(path, ["Review Text"], "Rating"), name="Reviews")
