"""Performance profiles, drawn."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from crossfade.errors import UserError
from crossfade.stats.figures.base import COLOURS, FONT_SIZE, INK, LINE_STYLES, label_size, literal, wrapped
from crossfade.stats.profile import Profile


def performance_plot(profile: Profile, *, title: str = "", largest: float | None = None) -> Figure:
    """The share of blocks on which a method is within a factor τ of the best, a stair a method.

    A method whose stair is above another's is within the factor more often; the height at τ = 1 is how often it is the
    best. The legend is in the order of the area under the stairs.

    Args:
        profile: from `performance_profile`.
        title: printed above.
        largest: where the axis of τ ends; by default it holds 98 % of the finite ratios, and the axis label says what
            is beyond.

    Raises:
        UserError: ``largest`` is not above 1.
    """
    ratios = profile.ratios
    finite = ratios.to_numpy()[np.isfinite(ratios.to_numpy())]
    if largest is None:
        largest = max(1.0 + 1e-3, float(np.quantile(finite, 0.98)) * 1.01)
    if largest <= 1:
        raise UserError(f"largest must be above 1, got {largest}")
    grid = np.concatenate([[1.0], np.unique(finite[(finite > 1) & (finite < largest)]), [largest]])
    heights = {name: (ratios[name].to_numpy()[:, None] <= grid[None, :]).mean(axis=0) for name in ratios.columns}
    area = {name: float((height[:-1] * np.diff(np.log(grid))).sum()) for name, height in heights.items()}
    names = {name: wrapped(name) for name in sorted(heights, key=lambda name: -area[name])}
    key_width, _ = label_size(names.values())
    key_height = sum(0.08 + 0.165 * (name.count("\n") + 1) for name in names.values())
    width, height = 5.2 + key_width + 0.8, max(3.4, key_height + 0.9)
    width = max(width, label_size([title], FONT_SIZE + 1)[0] + 1)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.75 / width, 0.6 / height, 4.3 / width, (height - 1.0) / height))
    colour = {name: i for i, name in enumerate(ratios.columns)}
    for name, label in names.items():
        i = colour[name]
        axes.step(
            grid, heights[name], where="post", label=label, lw=1.6, color=COLOURS[i % len(COLOURS)],
            ls=LINE_STYLES[i // len(COLOURS) % len(LINE_STYLES)],
        )  # fmt: skip
    beyond = float((ratios.to_numpy() > largest).mean())
    note = f"; {100 * beyond:.2g} % of results lie beyond" if beyond else ""
    axes.set_xlabel(f"within a factor τ of the best{note}", fontsize=FONT_SIZE, color=INK)
    axes.set_ylabel("share of blocks", fontsize=FONT_SIZE, color=INK)
    if largest > 4:
        axes.set_xscale("log", base=2)
    axes.set(xlim=(1, largest), ylim=(0, 1.02))
    axes.tick_params(labelsize=FONT_SIZE, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False, fontsize=FONT_SIZE)
    literal(legend.get_texts())
    figure.text(0.1 / width, 1 - 0.2 / height, title, va="center", fontsize=FONT_SIZE + 1, color=INK, parse_math=False)
    return figure
