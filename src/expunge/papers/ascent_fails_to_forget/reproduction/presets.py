"""How much is run: three declared sizes of the same study.

tiny     digits, in minutes: shows that everything works, and what small data can show
cpu      the real images on two cores, overnight: one forget set of each kind, to which others can be added
paper    the paper's own sizes, for a GPU or a cluster
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Data = Literal["digits", "mnist", "fashion_mnist", "cifar10"]


@dataclass(frozen=True)
class Images:
    """Data, network and recipe of one experiment."""

    data: Data
    network: str
    """`small_cnn` or `resnet9`."""
    widths: tuple[int, ...]
    """Channels of the convolutions of `small_cnn`, or of the first one of `resnet9`."""
    epochs: int
    batch_size: int
    lr: float
    """Peak rate."""
    train: int | None = None
    """Training images that are kept; None keeps all."""
    norm: Literal["batch"] | None = "batch"


@dataclass(frozen=True)
class Grid:
    """What is tried of the three methods; rates are the paper's, for a peak rate of .4, and scaled with the recipe's.

    Every epoch up to the last is a stopping time.
    """

    ascent_rates: tuple[float, ...]
    """Of gradient ascent."""
    ascent_stop: int
    """Its last epoch."""
    joint_rates: tuple[float, ...]
    """Of descent-ascent and SCRUB."""
    joint_stop: int
    ascent_epochs: tuple[int, ...]
    """Epochs that begin by climbing."""
    forget_batch_sizes: tuple[int, ...]


PAPER_GRID = Grid(
    ascent_rates=(1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 1e-2, 5e-2),
    ascent_stop=10,
    joint_rates=(5e-5, 5e-4, 1e-3, 5e-3),
    joint_stop=10,
    ascent_epochs=(3, 5),
    forget_batch_sizes=(32, 64),
)
"""Sec. 5 of the paper, whose published optimum lies at the largest joint rate."""
UPWARD_ASCENT, UPWARD_JOINT = (0.2,), (2e-2, 1e-1)
"""Rates above the paper's, that every preset tries as well."""


@dataclass(frozen=True)
class Preset:
    """What one run does."""

    figures: Images
    """Of the figures over nine forget sets."""
    grid: Grid
    members: int
    """Of every ensemble there, and of the residual network's."""
    subsets: int
    """Models on halves of the data, from which the component sets come."""
    tables: tuple[Images, ...]
    """Of Table 1."""
    shares: tuple[float, ...]
    """Sizes of its random forget sets, as shares of the training examples."""
    table_members: int
    residual: Images | None
    """Of the study with a residual network; None where that of the figures is one."""
    sets: tuple[int, ...] = field(default=tuple(range(1, 10)))
    """The forget sets of the figures, by their numbers in App. K."""

    def describe(self) -> dict[str, Any]:
        """Return what is declared, as JSON values."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


SHARES = (0.0002, 0.002, 0.1)
"""The paper's sizes in Table 1."""

PRESETS: Mapping[str, Preset] = {
    "tiny": Preset(
        figures=Images("digits", "small_cnn", (8, 16), epochs=10, batch_size=64, lr=0.2),
        grid=Grid(
            ascent_rates=(1e-4, 1e-2, 5e-2),
            ascent_stop=5,
            joint_rates=(1e-3, 5e-3),
            joint_stop=3,
            ascent_epochs=(2,),
            forget_batch_sizes=(64,),
        ),
        members=20,
        subsets=100,
        tables=(Images("digits", "small_cnn", (8, 16), epochs=10, batch_size=64, lr=0.2, norm=None),),
        shares=(0.01, 0.1),
        table_members=20,
        residual=Images("digits", "resnet9", (4,), epochs=2, batch_size=64, lr=0.2, train=300),
        sets=(1, 4),
    ),
    "cpu": Preset(
        figures=Images("cifar10", "small_cnn", (8, 16), epochs=4, batch_size=128, lr=0.1, norm=None),
        grid=Grid(
            ascent_rates=PAPER_GRID.ascent_rates,
            ascent_stop=5,
            joint_rates=PAPER_GRID.joint_rates[1::2],
            joint_stop=2,
            ascent_epochs=(1,),
            forget_batch_sizes=(64,),
        ),
        members=50,
        subsets=300,
        tables=(
            Images("mnist", "small_cnn", (8, 16), epochs=4, batch_size=128, lr=0.1, norm=None),
            Images("fashion_mnist", "small_cnn", (8, 16), epochs=4, batch_size=128, lr=0.1, norm=None),
        ),
        shares=SHARES,
        table_members=50,
        residual=Images("cifar10", "resnet9", (8,), epochs=8, batch_size=128, lr=0.2, train=4_000),
        sets=(2, 5, 8),
    ),
    "paper": Preset(
        figures=Images("cifar10", "resnet9", (64,), epochs=24, batch_size=512, lr=0.4),
        grid=PAPER_GRID,
        members=100,
        subsets=1000,
        tables=(
            Images("mnist", "small_cnn", (32, 64), epochs=10, batch_size=128, lr=0.1, norm=None),
            Images("fashion_mnist", "small_cnn", (32, 64), epochs=10, batch_size=128, lr=0.1, norm=None),
        ),
        shares=SHARES,
        table_members=100,
        residual=None,
    ),
}
"""By name; `tiny` needs no data but scikit-learn's."""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
