"""What the items of a reproduction share: tasks, forget sets, audits and the theory study, each made once.

Every part lies in a folder of its own beside the record and is gone on with by itself:

    figures/pretrained, figures/subsets     models of all training examples, and of random halves
    figures/set-1, ...                      an audit of the three methods, for each forget set
    residual/...                            the same of the residual network
    theory                                  the theory study
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.record import ForgetRecord, Record
from expunge.core.seeds import derive
from expunge.dependence import Components
from expunge.ensembles import train
from expunge.methods import Method
from expunge.papers.ascent_fails_to_forget.finding import Finding, TheoryRecord
from expunge.papers.ascent_fails_to_forget.reproduction import data, grid, sets
from expunge.papers.ascent_fails_to_forget.reproduction.presets import Images, Preset
from expunge.report import draw as draw_audit
from expunge.studies.audit import audit
from expunge.studies.run.parts import PartStore
from expunge.studies.run.progress import Reporter, Share
from expunge.studies.run.subset_models import task_components, task_subsets
from expunge.tasks import Choice

BENCHMARK = "unlearning-bench"
"""Folder of the benchmark's lists and tables, in the user's data folder."""


@dataclass
class Context:
    """The parts of one run, each made when the first item asks for it."""

    preset: Preset
    folder: Path
    root: Path | None
    """The user's folder with data."""
    seed: int
    device: torch.device
    numbers: tuple[str, ...]
    """Forget sets that were asked for."""
    parts: PartStore
    console: Console | None = None
    tasks: dict[Images, Task] = field(default_factory=dict)
    components: dict[Images, Components] = field(default_factory=dict)
    audits: dict[tuple[str, str], Record] = field(default_factory=dict)
    theory: dict[str, Finding] = field(default_factory=dict)

    def task(self, images: Images) -> Task:
        """Return the task of an experiment.

        Raises:
            InputError: If its files are missing, damaged, or not the original ones.
        """
        if images not in self.tasks:
            self.tasks[images] = data.load(images, self.root)
        return self.tasks[images]

    def benchmark(self) -> Path:
        """Return the folder of the public benchmark's lists and tables.

        Raises:
            InputError: If it is not there; the message says what to download.
        """
        folder = (self.root or Path("data")) / BENCHMARK
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not a folder, expected klom_results.csv and forget_set_indices/ of "
                f"https://github.com/RoyRin/data-unlearning-bench; put them there, and add --data {folder.parent}."
            )
        return folder

    def choice(self, images: Images, part: str, number: str) -> Choice:
        """Return one of the forget sets of an experiment."""
        task = self.task(images)
        return sets.choice(
            number,
            task,
            self.seed,
            lambda: self.principal(images, part),
            lambda: self.benchmark() / "forget_set_indices" / "CIFAR10",
        )

    def principal(self, images: Images, part: str) -> Components:
        """Return the components of the datamodel matrix of an experiment, from models on random halves of its data."""
        if images not in self.components:
            task, kept = self.task(images), PartStore(self.folder / part / "components")
            key = {"task": task.fingerprint, "subsets": self.preset.subsets, "seed": self.seed}
            found = kept.read(key)
            if found is None:
                made = self._components(images, part)
                kept.write(key, {name: torch.tensor(array) for name, array in made._asdict().items()}, {})
            else:
                made = Components(**{name: tensor.numpy() for name, tensor in found[0].items()})
            self.components[images] = made
        return self.components[images]

    def _components(self, images: Images, part: str) -> Components:
        with self.progress(f"{self.preset.subsets} models on halves of {images.data}") as share:
            trained = task_subsets(
                self.task(images),
                self.folder / part,
                self.seed,
                subsets=self.preset.subsets,
                device=self.device,
                progress=share,
            )
        return task_components(trained)

    def pretrained(self, images: Images, part: str, keep: Sequence[int] = ()) -> Ensemble:
        """Return the models of all training examples, with the states of their training after some epochs."""
        return self.models(images, self.folder / part / "pretrained", "pretrained", self.preset.members, keep=keep)

    def models(
        self,
        images: Images,
        store: Path,
        role: str,
        members: int,
        without: ForgetSet | None = None,
        keep: Sequence[int] = (),
    ) -> Ensemble:
        """Return models of an experiment, of all training examples or of those that are left without a forget set.

        Args:
            images: The experiment.
            store: Where they are kept.
            role: What they are for; others are independent.
            members: How many.
            without: What none of them sees.
            keep: Epochs after which the state of training is kept.
        """
        with self.progress(f"{members} models of {images.data}, {role}") as share:
            return train(
                self.task(images),
                members=members,
                without=without,
                keep=keep,
                seed=derive(self.seed, "reproduction", role) % 2**31,
                store=store,
                device=self.device,
                progress=share,
            )

    @contextmanager
    def progress(self, what: str) -> Iterator[Share]:
        """Show a bar for one piece of work."""
        with Reporter(self.console).start(1.0) as reporter:
            reporter.step(what)
            yield Share(reporter, 1.0)

    def say(self, text: str) -> None:
        """Print a line where progress is shown."""
        if self.console is not None:
            self.console.print(text, style="dim", markup=False, highlight=False)

    def figures(self, numbers: Sequence[str] = ()) -> Mapping[str, ForgetRecord]:
        """Return what the audits of the figures found, by forget set; empty asks for all that the run asks for."""
        wanted = [number for number in self.numbers if not numbers or number in numbers]
        return self.audited(self.preset.figures, "figures", wanted, grid.methods)

    def residual(self) -> Mapping[str, ForgetRecord]:
        """Return the same of the residual network: gradient ascent on a random and on a component set."""
        if self.preset.residual is None:
            return self.figures(RESIDUAL)
        # No forecast: nothing reads it here, and it would take about as long as an ensemble of this size.
        return self.audited(self.preset.residual, "residual", RESIDUAL, grid.ascents, forecast=False)

    def audited(
        self,
        images: Images,
        part: str,
        numbers: Sequence[str],
        methods: Callable[..., list[Method]],
        keep: Sequence[int] = (),
        forecast: bool = True,
    ) -> dict[str, ForgetRecord]:
        """Return what the audit of each forget set found; each lies in a folder of its own.

        Args:
            images: The experiment.
            part: Folder of its models and audits, in the run's folder.
            numbers: Forget sets.
            methods: From grid and recipe to what is tried.
            keep: Epochs of training whose state the methods need.
            forecast: Whether there is a forecast beforehand.
        """
        models: list[Ensemble] = []
        for number in numbers:
            if (part, number) in self.audits:
                continue
            choice = self.choice(images, part, number)
            if not models:
                models.append(self.pretrained(images, part, keep))
            self.say(f"{images.data}, forget set {sets.words(number)}")
            tried = methods(self.preset.grid, choice.task.recipe)
            self.audits[part, number] = self.audit(choice, part, tried, models[0], forecast)
        return {number: self.audits[part, number].forget_sets[0] for number in numbers}

    def audit(
        self,
        choice: Choice,
        part: str,
        methods: list[Method],
        pretrained: Ensemble | None = None,
        forecast: bool = True,
    ) -> Record:
        """Return what an audit of one forget set found; its folder and page are named after the set.

        Args:
            choice: Task, forget set and calibration set.
            part: Folder in the run's folder.
            methods: What is tried.
            pretrained: Models of all training examples; None trains them there.
            forecast: Whether there is a forecast beforehand.
        """
        out = self.folder / part / choice.forget.name
        _, record = audit(
            choice.task,
            forget=[choice],
            methods=methods,
            pretrained=pretrained,
            members=self.preset.members,
            out=out,
            seed=self.seed,
            resume=True,
            forecast=forecast,
            device=self.device.type,
            console=self.console,
            command="part of a reproduction",
        )
        draw_audit(out)
        return record

    def page(self, part: str, number: str) -> str:
        """Return where the page of an audit is, relative to the run's folder."""
        return f"{part}/{self.audits[part, number].forget_sets[0].name}/report.html"

    def finding(self, name: str) -> Finding:
        """Return what the theory study found of a result."""
        from expunge.papers.ascent_fails_to_forget.report.theory import draw as draw_theory
        from expunge.papers.ascent_fails_to_forget.theory_study import run as run_theory

        if not self.theory:
            out = self.folder / "theory"
            run_theory(("all",), out, seed=self.seed, resume=True, console=self.console)
            draw_theory(out)
            self.theory = {each.name: each for each in TheoryRecord.load(out).findings}
        return self.theory[name]

    def setting(self, images: Images, members: int) -> str:
        """Return data, network and members of an experiment, in words."""
        task = self.task(images)
        return (
            f"{data.title(images)}, {len(task.train):,} training and {len(task.validation):,} validation images; "
            f"{data.network(images)}, {images.epochs} epochs; {members} members; seed {self.seed}"
        )


RESIDUAL = ("2", "5")
"""Forget sets of the residual network: random, and of the first component."""
