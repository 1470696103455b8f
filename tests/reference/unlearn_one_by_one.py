"""Slow obvious twins of the unlearning methods: one model, a plain PyTorch loop, its own optimiser.

Batch orders follow the rule in words: a member's seed comes from the run's seed, the method's name and the member's
index; the order of every pass comes from that seed and the pass's name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.core import Task
from expunge.core.seeds import derive, generator


def passes(positions: np.ndarray, seed: int, method: str, member: int, what: str, batch: int) -> Iterator[np.ndarray]:
    own = derive(derive(seed, "unlearn", method, member), what)
    order = positions[torch.randperm(len(positions), generator=generator(own, "order", 0)).numpy()]
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def stepper(module: nn.Module, method) -> torch.optim.Optimizer:
    momentum, decay = method.momentum, method.weight_decay
    if method.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if method.optimizer == "adam" else torch.optim.AdamW
        return kind(module.parameters(), lr=method.lr, betas=(momentum, 0.999), weight_decay=decay, foreach=False)
    return torch.optim.SGD(module.parameters(), lr=method.lr, momentum=momentum, weight_decay=decay, foreach=False)


def normalise(module: nn.Module, statistics: str) -> None:
    module.train(statistics == "updated")


def update(module: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def gradient_ascent(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module = copy.deepcopy(module)
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    for epoch in range(1, method.epochs + 1):
        for part in passes(forget.indices, seed, "gradient_ascent", member, f"forget-{epoch}", method.batch_size):
            update(module, optimiser, -F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def fine_tune(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module = copy.deepcopy(module)
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    for epoch in range(1, method.epochs + 1):
        for part in passes(forget.retain, seed, "fine_tune", member, f"retain-{epoch}", method.batch_size):
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def l1_sparse(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module = copy.deepcopy(module)
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    norms = [part for part in module.modules() if "Norm" in type(part).__name__]
    scales = {id(parameter) for part in norms for parameter in part.parameters()}
    for epoch in range(1, method.epochs + 1):
        done = (epoch - 1) / method.epochs
        a = method.penalty * {"fading": 1 - done, "constant": 1, "rising": done + 1 / method.epochs}[method.schedule]
        for part in passes(forget.retain, seed, "fine_tune", member, f"retain-{epoch}", method.batch_size):
            size = sum(parameter.abs().sum() for parameter in module.parameters() if id(parameter) not in scales)
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]) + a * size)
    return module.eval()


def fisher_noise(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module = copy.deepcopy(module).eval()
    fisher = importances(module, task.train.x[forget.retain], task.train.y[forget.retain])
    own = derive(seed, "unlearn", "fisher_noise", member)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator(own, "fisher noise", name), dtype=torch.float64)
            for weight, known, noise in zip(parameter.view(-1), fisher[name].view(-1), drawn.view(-1), strict=True):
                weight += min(method.alpha / (float(known) + method.damping), method.most) ** 0.5 * float(noise)
    return module


def unsir(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    own, module = derive(seed, "unlearn", "unsir", member), copy.deepcopy(module).eval()
    x, y, shares = task.train.x, task.train.y, []
    for epoch in range(method.epochs + 1):
        (order,) = passes(forget.retain, seed, "unsir", member, f"retain-{epoch}", len(forget.retain))
        shares.append(order[: max(1, round(method.retain_share * len(order)))])
    inputs, labels = [x[shares[0]]], [y[shares[0]]]
    for c in sorted(set(y[forget.indices].tolist())):
        drawn = torch.randn(method.noise_size, *x.shape[1:], generator=generator(own, "noise inputs", c))
        noise, wrong = nn.Parameter(drawn.to(x.dtype)), torch.full((method.noise_size,), c)
        optimiser = torch.optim.Adam([noise], lr=method.noise_lr, foreach=False)
        for _ in range(method.noise_steps):
            size = sum(float(method.noise_penalty) * (one**2).sum() for one in noise) / len(noise)
            optimiser.zero_grad()
            (size - F.cross_entropy(module(noise), wrong)).backward()
            optimiser.step()
        inputs.append(noise.detach())
        labels.append(wrong)
    real = len(shares[0])
    inputs, labels = torch.cat(inputs), torch.cat(labels)
    numbers = np.concatenate([np.arange(real), np.tile(np.arange(real, len(labels)), method.noise_copies)])
    order = numbers[torch.randperm(len(numbers), generator=generator(derive(own, "impair"), "order", 0)).numpy()]
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    for start in range(0, len(order), method.batch_size):
        part = order[start : start + method.batch_size]
        update(module, optimiser, F.cross_entropy(module(inputs[part]), labels[part]))
    for group in optimiser.param_groups:
        group["lr"] = method.repair * method.lr
    for share in shares[1:]:
        for start in range(0, len(share), method.batch_size):
            part = share[start : start + method.batch_size]
            update(module, optimiser, F.cross_entropy(module(x[part]), y[part]))
    return module.eval()


def gradient_descent_ascent(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module, name = copy.deepcopy(module), "gradient_descent_ascent"
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    for epoch in range(1, method.epochs + 1):
        if epoch <= method.ascent_epochs:
            for part in passes(forget.indices, seed, name, member, f"forget-{epoch}", method.forget_batch_size):
                update(module, optimiser, -F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
        for part in passes(forget.retain, seed, name, member, f"retain-{epoch}", method.batch_size):
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The loss of the official SCRUB code: KL of softened outputs, averaged over the batch, times T squared."""
    return (
        F.kl_div(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction="batchmean")
        * temperature**2
    )


def log_normaliser(eta: Tensor) -> Tensor:
    """Log of the divided difference of exp: a corner of the exponential of a matrix with ones above eta."""
    ones = torch.diag(torch.ones(eta.shape[1] - 1, dtype=eta.dtype), 1)
    top = eta.max(1).values.detach()
    return top + torch.matrix_exp(torch.diag_embed(eta - top[:, None]) + ones)[:, 0, -1].log()


def apart(student: Tensor, teacher: Tensor, method) -> Tensor:
    """What a method's option `loss` says."""
    if method.loss == "kl":
        return distillation(student, teacher, method.temperature)
    own, theirs = student / method.temperature, (teacher / method.temperature).detach().requires_grad_(True)
    normaliser = log_normaliser(theirs)
    (mean,) = torch.autograd.grad(normaliser.sum(), theirs)
    theirs, normaliser = theirs.detach(), normaliser.detach()
    each = log_normaliser(own) - normaliser - ((own - theirs) * mean).sum(1)
    return method.temperature**2 * each.mean()


def scrub(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    teacher = copy.deepcopy(module).eval()
    student = copy.deepcopy(module)
    normalise(student, method.statistics)
    optimiser = stepper(student, method)  # of the student: the teacher must not move
    x, y = task.train.x, task.train.y
    for epoch in range(1, method.epochs + 1):
        for group in optimiser.param_groups:
            group["lr"] = method.lr * method.decay ** sum(epoch >= e for e in method.decay_epochs)
        if epoch <= method.msteps:
            for part in passes(forget.indices, seed, "scrub", member, f"forget-{epoch}", method.forget_batch_size):
                with torch.no_grad():
                    target = teacher(x[part])
                update(student, optimiser, -apart(student(x[part]), target, method))
        for part in passes(forget.retain, seed, "scrub", member, f"retain-{epoch}", method.batch_size):
            with torch.no_grad():
                target = teacher(x[part])
            logits = student(x[part])
            near = apart(logits, target, method)
            update(student, optimiser, method.gamma * F.cross_entropy(logits, y[part]) + method.alpha * near)
    return student.eval()


def predicted_margins(module: nn.Module, task: Task, forget) -> Tensor:
    """Targets for the tests: what the module has, moved by known amounts that differ between examples; some unknown."""
    with torch.no_grad():
        logits = copy.deepcopy(module).eval()(task.train.x)
    targets = margin_of(logits, task.train.y) + 0.1 * torch.sin(torch.arange(len(task.train.y), dtype=logits.dtype))
    targets[torch.as_tensor(forget.indices)] -= 1.5
    targets[torch.as_tensor(forget.retain[::7].copy())] = float("nan")
    return targets


def margin_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the true class minus log-sum-exp of the others, example by example."""
    rows = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        others = torch.cat([row[:label], row[label + 1 :]])
        rows.append(row[label] - torch.logsumexp(others, 0))
    return torch.stack(rows)


def margin_matching(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    targets, module, name = predicted_margins(module, task, forget), copy.deepcopy(module), "margin_matching"
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    most = max(1, round(method.retain_share * len(forget.retain)))
    for epoch in range(1, method.epochs + 1):
        own = derive(derive(seed, "unlearn", name, member), f"retain-{epoch}")
        order = forget.retain[torch.randperm(len(forget.retain), generator=generator(own, "order", 0)).numpy()][:most]
        turn, waiting = 0, []
        for start in range(0, len(order), method.batch_size):
            if not waiting:
                what = f"forget-{epoch}-{turn}"
                waiting = list(passes(forget.indices, seed, name, member, what, method.forget_batch_size))
                turn += 1
            forgotten, retained = waiting.pop(0), order[start : start + method.batch_size]
            together = np.concatenate([forgotten, retained])
            margins = margin_of(module(task.train.x[together]), task.train.y[together])
            terms = [
                F.huber_loss(margin, target, delta=method.delta)
                for margin, target in zip(margins, targets[together], strict=True)
            ]
            parts = []
            for chosen in (slice(0, len(forgotten)), slice(len(forgotten), None)):
                known = [
                    t for t, target in zip(terms[chosen], targets[together][chosen], strict=True) if target == target
                ]
                parts.append(sum(known) / len(known) if known else torch.zeros((), dtype=margins.dtype))
            update(module, optimiser, parts[0] + method.retain_weight * parts[1])
    return module.eval()


def last_layers(module: nn.Module, task: Task, forget, method, seed: int, member: int, layers: str) -> nn.Module:
    """CF-k and EU-k; `layers` are the names of the modules that move, with a space between them."""
    own, module = derive(seed, "unlearn", method.order or method.name, member), copy.deepcopy(module).eval()
    torch.manual_seed(derive(own, "initialisation"))
    fresh = task.model().to(task.train.x.dtype)
    parts = [module.get_submodule(name) for name in layers.split()]
    if method.name == "eu_k":
        for part, name in zip(parts, layers.split(), strict=True):
            part.load_state_dict(fresh.get_submodule(name).state_dict())
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    optimiser = stepper(nn.ModuleList(parts), method)  # of these alone: decay would move the others
    for epoch in range(1, method.epochs + 1):
        purpose = method.order or method.name
        for part in passes(forget.retain, seed, purpose, member, f"retain-{epoch}", method.batch_size):
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def importances(module: nn.Module, x: Tensor, y: Tensor, batch: int = 1, of: str = "loss") -> dict[str, Tensor]:
    """Mean of squared gradients; with a batch larger than 1, of means of batches, as public code of SSD has it."""
    total = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    starts = range(0, len(x), batch)
    for start in starts:
        module.zero_grad()
        outputs = module(x[start : start + batch])
        loss = F.cross_entropy(outputs, y[start : start + batch]) if of == "loss" else (outputs**2).sum(1).mean()
        loss.backward()
        for name, parameter in module.named_parameters():
            total[name] += parameter.grad**2 / len(starts)
    return total


def ssd(module: nn.Module, task: Task, forget, method) -> nn.Module:
    module = copy.deepcopy(module).eval()
    of_all = importances(module, task.train.x, task.train.y, of=method.importance)
    of_forget = importances(module, task.train.x[forget.indices], task.train.y[forget.indices], of=method.importance)
    alpha = method.alpha
    if method.threshold == "automatic":
        ratios = torch.cat([(of_forget[name] / of_all[name]).nan_to_num(nan=0.0).flatten() for name in of_all])
        alpha = np.percentile(ratios.numpy(), 100 - np.log(1 + 100 * len(forget) / len(task.train)))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            weights, all_of_it, of_it = parameter.view(-1), of_all[name].view(-1), of_forget[name].view(-1)
            for j in range(len(weights)):
                if of_it[j] > alpha * all_of_it[j]:
                    weights[j] *= min(method.dampening * float(all_of_it[j] / of_it[j]), 1.0)
    return module


def neg_grad_plus(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module, name = copy.deepcopy(module), "neg_grad_plus"
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    a, turn, waiting = method.retain_weight, 0, []
    for epoch in range(1, method.epochs + 1):
        for retained in passes(forget.retain, seed, name, member, f"retain-{epoch}", method.batch_size):
            if not waiting:
                waiting = list(passes(forget.indices, seed, name, member, f"forget-{turn}", method.forget_batch_size))
                turn += 1
            forgotten = waiting.pop(0)
            together = np.concatenate([forgotten, retained])  # one batch, whose statistics both share
            logits, labels, first = module(task.train.x[together]), task.train.y[together], len(forgotten)
            up = F.cross_entropy(logits[:first], labels[:first])
            down = F.cross_entropy(logits[first:], labels[first:])
            update(module, optimiser, a * down - (1 - a) * up)
    return module.eval()


def random_labels(module: nn.Module, task: Task, forget, method, seed: int, member: int, keep=None) -> nn.Module:
    module, name = copy.deepcopy(module), "random_labels"
    keep = keep or (lambda module: None)  # what is done to the weights after every step
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    own, classes = derive(seed, "unlearn", name, member), 3
    for epoch in range(1, method.epochs + 1):
        draw = generator(own, "labels", 0 if method.redraw == "fixed" else epoch)
        most = classes if method.include_true else classes - 1
        labels = {}
        for position, number in zip(forget.indices, torch.randint(most, (len(forget),), generator=draw), strict=True):
            allowed = [c for c in range(classes) if method.include_true or c != int(task.train.y[position])]
            labels[position] = allowed[number]
        for part in passes(forget.indices, seed, name, member, f"forget-{epoch}", method.forget_batch_size):
            drawn = torch.tensor([labels[position] for position in part])
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), drawn))
            keep(module)
        for part in passes(forget.retain, seed, name, member, f"retain-{epoch}", method.batch_size):
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
            keep(module)
    return module.eval()


def saliency(module: nn.Module, task: Task, forget) -> dict[str, Tensor]:
    """Absolute sums of the gradients of single forget examples."""
    module = copy.deepcopy(module).eval()
    total = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    for position in forget.indices:
        module.zero_grad()
        F.cross_entropy(module(task.train.x[[position]]), task.train.y[[position]]).backward()
        for name, parameter in module.named_parameters():
            total[name] += parameter.grad
    return {name: tensor.abs() for name, tensor in total.items()}


def salun(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    found = saliency(module, task, forget)
    ranked = sorted((float(value) for tensor in found.values() for value in tensor.flatten()), reverse=True)
    least = ranked[round(method.share * len(ranked)) - 1]
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    def keep(moved: nn.Module) -> None:
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                outside = (found[name] < least) | (found[name] == 0)
                parameter[outside] = start[name][outside]

    return random_labels(module, task, forget, method, seed, member, keep if method.share < 1 else None)


def perturb_and_repair(module, task: Task, forget, method, seed: int, member: int, layers: str) -> nn.Module:
    """`layers` are the names of the modules that are perturbed, with a space between them."""
    own, module = derive(seed, "unlearn", "fine_tune", member), copy.deepcopy(module)
    pretrained = copy.deepcopy(module.state_dict())
    torch.manual_seed(derive(own, "initialisation"))
    fresh = dict(task.model().to(task.train.x.dtype).named_parameters())
    parts = {
        f"{part}.{name}": p for part in layers.split() for name, p in module.get_submodule(part).named_parameters()
    }
    if method.how != "reset":
        parts = {name: p for name, p in parts.items() if p.ndim > 1}
    x, y, drawn = task.train.x, task.train.y, {}
    if method.how == "gradients":
        module.eval()
        size = min(len(forget.indices), len(forget.retain))
        order = forget.retain[
            torch.randperm(len(forget.retain), generator=generator(derive(own, "retain-0"), "order", 0)).numpy()
        ]
        total = F.cross_entropy(module(x[order[:size]]), y[order[:size]], reduction="sum")
        total = total - F.cross_entropy(module(x[forget.indices]), y[forget.indices], reduction="sum")
        module.zero_grad()
        total.backward()
        for name, p in parts.items():
            drawn[name] = set(
                sorted(range(p.numel()), key=lambda j, g=p.grad: abs(float(g.view(-1)[j])))[
                    : round(method.share * p.numel())
                ]
            )
    if method.how == "prune":
        every = sorted((abs(float(v)), name, j) for name, p in parts.items() for j, v in enumerate(p.detach().view(-1)))
        for name in parts:
            drawn[name] = {j for _, of, j in every[: round(method.share * len(every))] if of == name}
    if method.how == "reset":
        drawn = {name: set(range(p.numel())) for name, p in parts.items()}

    def shake(scale: float, what: str) -> None:
        for name, p in parts.items():
            p.add_(scale * torch.randn(p.shape, generator=generator(own, what, name), dtype=torch.float64))

    with torch.no_grad():
        for name, p in parts.items():
            for j in drawn.get(name, ()):
                p.view(-1)[j] = fresh[name].view(-1)[j]
        if method.how == "noise":
            shake(method.noise, "noise")
        for p in parts.values() if method.how == "transpose" else ():
            if p.ndim == 4 and p.shape[2] == p.shape[3] > 1:
                for kernel in p.view(-1, *p.shape[2:]):
                    kernel.copy_(kernel.T.clone())
    start, counts = copy.deepcopy(module).eval(), np.bincount(y[forget.retain].numpy(), minlength=3)
    start.load_state_dict(pretrained)
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    for epoch in range(1, method.epochs + 1):
        done = (epoch - 0.5) / method.epochs
        shape = {"constant": 1.0, "triangular": min(2 * done, 2 - 2 * done), "linear": 1 - done}
        shape["cosine"] = 0.5 * (1 + float(np.cos(np.pi * done)))
        for group in optimiser.param_groups:
            group["lr"] = method.lr * shape[method.schedule] * (method.last_rate if epoch == method.epochs else 1)
        still = {}
        if method.tensors and epoch <= method.epochs - method.whole_epochs:
            norms = {id(p) for m in module.modules() if "Norm" in type(m).__name__ for p in m.parameters()}
            every = {name: p for name, p in module.named_parameters() if id(p) not in norms}
            order = torch.randperm(len(every), generator=generator(own, "tensors", epoch)).tolist()
            chosen = [list(every)[j] for j in order[: method.tensors]]
            for name in chosen[: method.shaken] if epoch > 1 else ():
                draw = torch.randn(
                    every[name].shape, generator=generator(own, "shake", epoch, name), dtype=torch.float64
                )
                every[name].data.add_(method.shake * draw)
            still = {p: p.detach().clone() for name, p in every.items() if name not in chosen}
        if epoch == method.epochs and method.last_noise:
            with torch.no_grad():
                shake(method.last_noise, "last noise")
        for part in passes(forget.retain, seed, "fine_tune", member, f"retain-{epoch}", method.batch_size):
            optimiser.zero_grad()
            z = module(x[part])
            loss = F.cross_entropy(z, y[part], weight=torch.tensor(counts**-method.class_power, dtype=z.dtype))
            if method.entropy:
                now, before = z.softmax(1), start(x[part]).softmax(1).detach()
                change = (before * before.log()).sum(1) - (now * now.log()).sum(1)
                loss = loss + method.entropy * (change**2).mean()
            loss.backward()
            for p in still:
                p.grad.zero_()
            for name, new in drawn.items():
                for j in range(parts[name].numel()):
                    if j not in new:
                        parts[name].grad.view(-1)[j] *= method.kept
            optimiser.step()
            for p, value in still.items():
                p.data.copy_(value)
    return module.eval()


def primal_dual(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    start, module, name = copy.deepcopy(module).eval(), copy.deepcopy(module), "primal_dual"
    x, y, level = task.train.x, task.train.y, method.target
    with torch.no_grad():
        if level is None:
            losses, level = F.cross_entropy(start(task.validation.x), task.validation.y, reduction="none"), 0.0
            found = [c for c in y[forget.indices].tolist() if (task.validation.y == c).any()]
            for c in found:  # every forget example stands for the held-out rows of its class
                level += float(losses[task.validation.y == c].mean()) / len(found)
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    multiplier, turn, waiting = 0.0, 0, []
    second, held = 0.0, []
    vx, vy, rounds = task.validation.x, task.validation.y, 0
    for epoch in range(1, method.epochs + 1):
        for part in passes(forget.retain, seed, name, member, f"retain-{epoch}", method.batch_size):
            if not held:
                every = np.arange(len(vy))
                held = list(passes(every, seed, name, member, f"held-out-{rounds}", method.batch_size))
                rounds += 1
            if not waiting:
                waiting = list(passes(forget.indices, seed, name, member, f"forget-{turn}", method.forget_batch_size))
                turn += 1
            forgotten = waiting.pop(0)
            gap = (F.cross_entropy(module(x[forgotten]), y[forgotten]) - level).abs()
            on_retain = F.cross_entropy(module(x[part]), y[part])
            with torch.no_grad():
                before = F.cross_entropy(start(x[part]), y[part])
            whole = gap + multiplier * on_retain
            if method.validation_tolerance is not None:
                own = held.pop(0)
                on_held = F.cross_entropy(module(vx[own]), vy[own])
                with torch.no_grad():
                    rise = float(on_held - F.cross_entropy(start(vx[own]), vy[own]))
                whole = whole + second * on_held
                second = max(0.0, second + method.dual_lr * (rise - method.validation_tolerance))
            update(module, optimiser, whole)
            multiplier = max(0.0, multiplier + method.dual_lr * (on_retain.item() - before.item() - method.tolerance))
    return module.eval()


def bad_teacher(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    own = derive(seed, "unlearn", "bad_teacher", member)
    torch.manual_seed(derive(derive(own, "teacher"), "nothing"))  # what was drawn before must not matter
    bad = task.build(derive(own, "teacher")).to(task.train.x.dtype).eval()
    good, student = copy.deepcopy(module).eval(), copy.deepcopy(module)
    normalise(student, method.statistics)
    optimiser, x = stepper(student, method), task.train.x
    for epoch in range(1, method.epochs + 1):
        (order,) = passes(forget.retain, seed, "bad_teacher", member, f"retain-{epoch}", len(forget.retain))
        both = np.concatenate([forget.indices, order[: max(1, round(method.retain_share * len(order)))]])
        for part in passes(both, seed, "bad_teacher", member, f"joint-{epoch}", method.batch_size):
            with torch.no_grad():
                targets = [(bad if i in forget.indices else good)(x[[i]]) for i in part]
            update(student, optimiser, apart(student(x[part]), torch.cat(targets), method))
    return student.eval()


def recall_inputs(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    start, module = copy.deepcopy(module).eval(), copy.deepcopy(module).eval()
    optimiser, step = stepper(module, method), 0
    own, rows = derive(seed, "unlearn", "gradient_ascent", member), task.train.x[forget.indices]
    centre, spread = rows.mean(0), float(((rows - rows.mean()) ** 2).mean().sqrt())

    def apart(x: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(module(x), 1), F.softmax(start(x), 1), reduction="none").sum(1)

    for epoch in range(1, method.epochs + 1):
        for part in passes(
            forget.indices, seed, "gradient_ascent", member, f"forget-{epoch}", method.forget_batch_size
        ):
            draw = generator(own, "recall", step)
            z = torch.randn((method.batch_size, *rows.shape[1:]), generator=draw, dtype=torch.float64)
            wanted = torch.randint(3, (method.batch_size,), generator=draw)
            for _ in range(method.input_steps):
                z = z.detach().requires_grad_(True)
                for row in range(method.batch_size):  # every input has a step of its own
                    x = (centre + spread * z[row]).unsqueeze(0)
                    fitted = F.cross_entropy(start(x), wanted[row : row + 1])
                    near = method.prior / 2 * (z[row] ** 2).mean()
                    (fitted - method.disagreement * apart(x).sum() + near).backward()
                z = z.detach() - method.input_lr * z.grad
            logits = module(task.train.x[part])
            loss = -F.cross_entropy(logits, task.train.y[part])
            if method.forget == "uniform":
                loss = -F.log_softmax(logits, 1).mean()
            update(module, optimiser, loss + method.retain_weight * apart((centre + spread * z).detach()).mean())
            step += 1
    return module


def influences(module: nn.Module, task: Task, forget) -> Tensor:
    """Inner products of the gradient of the mean loss over F with that of each retain example."""

    def gradient(rows: np.ndarray) -> Tensor:
        loss = F.cross_entropy(module(task.train.x[rows]), task.train.y[rows])
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(module.parameters()))])

    of_forget = gradient(forget.indices)
    return torch.stack([gradient(np.array([row])) @ of_forget for row in forget.retain])


def largest(scores: Tensor, forget, many: int) -> np.ndarray:
    return np.sort(forget.retain[scores.argsort(descending=True, stable=True)[:many].numpy()])


def replayed_rows(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> np.ndarray:
    many, name = max(1, round(method.budget * len(forget.retain))), "gradient_descent_ascent"
    module = copy.deepcopy(module).eval()
    if method.choice == "uniform":
        draw = generator(derive(seed, "unlearn", name, member), "replay")
        return np.sort(forget.retain[torch.randperm(len(forget.retain), generator=draw)[:many].numpy()])
    if method.choice == "cross_influence":
        return largest(influences(module, task, forget), forget, many)
    x, y = task.train.x[forget.retain], task.train.y[forget.retain]
    with torch.no_grad():
        before = margin_of(module(x), y)
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    for part in passes(forget.indices, seed, name, member, "forget-choice", method.forget_batch_size):
        update(module, optimiser, -F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    with torch.no_grad():
        return largest((margin_of(module.eval()(x), y) - before).abs(), forget, many)


def replay(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    chosen, name = replayed_rows(module, task, forget, method, seed, member), "gradient_descent_ascent"
    module = copy.deepcopy(module)
    normalise(module, method.statistics)
    optimiser = stepper(module, method)
    for epoch in range(1, method.epochs + 1):
        if epoch <= method.ascent_epochs:
            for part in passes(forget.indices, seed, name, member, f"forget-{epoch}", method.forget_batch_size):
                update(module, optimiser, -F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
        for part in passes(chosen, seed, name, member, f"retain-{epoch}", method.batch_size):
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def rfe(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    start, module, name = copy.deepcopy(module).eval(), copy.deepcopy(module), "rfe"
    many = min(len(forget.retain), max(1, round(method.neighbours * len(forget))))
    chosen, x, y = largest(influences(start, task, forget), forget, many), task.train.x, task.train.y
    normalise(module, method.statistics)
    optimiser, waiting, turn = stepper(module, method), [], 0
    parameters = list(module.parameters())
    for epoch in range(1, method.epochs + 1):
        for part in passes(forget.indices, seed, name, member, f"forget-{epoch}", method.forget_batch_size):
            if not waiting:
                waiting = list(passes(chosen, seed, name, member, f"neighbours-{turn}", method.batch_size))
                turn += 1
            near = waiting.pop(0)
            up = torch.autograd.grad(-F.cross_entropy(module(x[part]), y[part]), parameters)
            with torch.no_grad():
                before = F.softmax(start(x[near]), 1)
            logits = module(x[near])
            apart = ((F.softmax(logits, 1) - before) ** 2).sum(1).mean()
            hold = torch.autograd.grad(F.cross_entropy(logits, y[near]) + method.prediction_weight * apart, parameters)
            inner, size = (sum(float((a * b).sum()) for a, b in zip(u, hold, strict=True)) for u in (up, hold))
            for parameter, own, against in zip(parameters, up, hold, strict=True):
                parameter.grad = own - min(inner, 0.0) / size * against
            optimiser.step()
    return module.eval()


TWINS = {
    "gradient_ascent": gradient_ascent,
    "fine_tune": fine_tune,
    "l1_sparse": l1_sparse,
    "gradient_descent_ascent": gradient_descent_ascent,
    "scrub": scrub,
    "margin_matching": margin_matching,
    "neg_grad_plus": neg_grad_plus,
    "random_labels": random_labels,
    "salun": salun,
    "primal_dual": primal_dual,
    "bad_teacher": bad_teacher,
    "recall_inputs": recall_inputs,
    "replay": replay,
    "rfe": rfe,
}
