"""The question "would it help on my images?": a folder of class folders, from a request to an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crossfade.errors import UserError
from crossfade.lab.described import describe_run
from crossfade.lab.result import ComparisonResult
from crossfade.lab.store import Run, Store
from crossfade.lab.train.deep.augment import Augment
from crossfade.lab.train.deep.recipe import ImageRecipe
from crossfade.lab.train.hardware import Hardware
from crossfade.lab.trial import Trial

if TYPE_CHECKING:
    from crossfade.lab.data.images import ImageTask
    from crossfade.lab.methods import Method

__all__ = ["FolderSettings", "ImageComparison", "compare_folder", "execute_folder", "plan_folder"]

_METHODS = ("ce", "f0", "f0-late", "gradual")
_STUDY = "compare-images"


@dataclass(frozen=True)
class FolderSettings:
    """What decides a comparison on images, except the images.

    Args:
        methods: Names out of ``crossfade list``, or ``cot``; CE is always there.
        loss: Own losses g(ce), each ``"module:function"`` or ``"file.py:function"``.
        net: A name out of ``crossfade.lab.nets.net_names()``.
        pretrained: Start from torchvision's weights.
        repeats: Splits (where the folder brings none), each with its own initial weights, order and augmentation.
        seed: Another number gives others.
        test_size: Share of the images of a part that is set aside.
        size: Pixels a side; None: see ``load_folder``, and 224 for pretrained networks.
        epochs, batch_size, learning_rate, weight_decay: Of SGD with momentum 0.9; the rate falls tenfold at 1/2, 2/3
            and 5/6 of the training, as in the paper's longest protocol.
        augment: "full" is crop, flip and a little rotation; "flip", or "none".
        precision: As ``ImageRecipe``'s.
    """

    methods: tuple[str, ...] = _METHODS
    loss: tuple[str, ...] = ()
    net: str = "resnet20"
    pretrained: bool = False
    repeats: int = 3
    seed: int = 0
    test_size: float = 0.2
    size: int | None = None
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    augment: str = "full"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UserError(f"repeats must be at least 1, got {self.repeats}")
        if not 0.0 < self.test_size < 0.5:
            raise UserError(f"test_size must be greater than 0 and less than 0.5, got {self.test_size!r}")
        if self.augment not in ("full", "flip", "none"):
            raise UserError(f"augment must be full, flip or none, got {self.augment!r}")
        if self.size is not None and not 8 <= self.size <= 1024:
            raise UserError(f"size must be from 8 to 1024 pixels, got {self.size}")

    def recipe(self, side: int) -> ImageRecipe:
        """The protocol for images of so many pixels a side."""
        augment = {
            "full": Augment(crop=max(1, side // 8), rotation=10.0),
            "flip": Augment(crop=0),
            "none": Augment(crop=0, flip=False),
        }[self.augment]
        return ImageRecipe(
            net=self.net, pretrained=self.pretrained, epochs=self.epochs, batch_size=self.batch_size,
            # Pretrained weights are to be moved a little, fresh ones a lot.
            learning_rate=self.learning_rate or (0.01 if self.pretrained else 0.1),
            milestones=tuple(round(self.epochs * part, 6) for part in (1 / 2, 2 / 3, 5 / 6)),
            weight_decay=self.weight_decay, augment=augment, size=side, granularity="step", select="validation",
            precision=self.precision, scale="own",  # type: ignore[arg-type]
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ImageComparison:
    """A request that can be carried out: the images are read, the network's name is known, nothing is trained."""

    trials: tuple[Trial, ...]
    run: Run
    task: ImageTask
    hardware: Hardware = field(default_factory=Hardware)


def plan_folder(
    folder: str | Path,
    settings: FolderSettings,
    command: str | Sequence[str],
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen)
) -> ImageComparison:
    """Read the images and write the request down as trials.

    Raises:
        UserError: images, network, methods or settings that can't be used.
    """
    from crossfade.lab.data.image_folder import load_folder
    from crossfade.lab.data.images import ImageTask
    from crossfade.lab.nets import SMALL_NETS, check_name

    check_name(settings.net)
    if settings.pretrained and settings.net in SMALL_NETS:
        raise UserError(f"net {settings.net!r} has no pretrained weights; use one of torchvision's, such as resnet18")
    methods = _methods(settings)
    size = settings.size or (224 if settings.pretrained else None)
    data = load_folder(folder, size=size)
    task = ImageTask(data, select="validation", test_size=settings.test_size, seed=settings.seed)
    recipe = settings.recipe(data.train.images.shape[2]).fitting(len(task.split(0).train))
    trials = tuple(
        Trial(_STUDY, task, method, recipe, repeat) for repeat in range(settings.repeats) for method in methods
    )
    notes = ["the test part is the folder's own, the same in every repeat"] if data.test is not None else []
    meta = describe_run(f"Losses compared on {task.name}", trials, command, seed=settings.seed, notes=notes)
    run = Run(_STUDY, {"meta": meta, "settings": recipe.to_dict()}, tuple(trial.key for trial in trials))
    return ImageComparison(trials, run, task, hardware)


def execute_folder(
    planned: ImageComparison,
    store: Path,
    *,
    keep_weights: Path | None = None,
    progress: bool = False,
    retry_failed: bool = False,
) -> ComparisonResult:
    """Train what the store doesn't know yet and read the answer from it."""
    from crossfade.lab.run import run_request

    run_request(
        [planned.run], planned.trials, store, planned.hardware, keep_weights=keep_weights, progress=progress,
        retry_failed=retry_failed, label="Comparing",
    )  # fmt: skip
    with Store(store, mode="read") as opened:
        return ComparisonResult.load(opened, planned.run)


def compare_folder(
    folder: str | Path,
    settings: FolderSettings = FolderSettings(),
    *,
    store: str | Path = "crossfade.db",
    hardware: Hardware = Hardware(),  # noqa: B008
    keep_weights: Path | None = None,
    progress: bool = True,
) -> ComparisonResult:
    """Compare losses on a folder of class folders.

    >>> compare_folder("photos", FolderSettings(epochs=20))  # doctest: +SKIP

    Raises:
        UserError: images or settings that can't be used, in one line.
    """
    planned = plan_folder(folder, settings, f"crossfade.lab.image_compare.compare_folder({str(folder)!r})", hardware)
    return execute_folder(planned, Path(store), keep_weights=keep_weights, progress=progress)


def _methods(settings: FolderSettings) -> list[Method]:
    from crossfade.lab.methods import method

    chosen = [method(name, deep=True) for name in dict.fromkeys(["ce", *settings.methods])]
    if settings.loss:
        from crossfade.lab.own_loss import load_loss

        chosen += [load_loss(spec) for spec in settings.loss]
    if len(chosen) < 2:
        raise UserError("methods: only the control 'ce' is left; name another one to compare it with")
    return chosen
