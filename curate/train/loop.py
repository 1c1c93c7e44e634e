"""The training loop: AdamW, warm-up and cosine, mixed precision, clipping, checkpoints, exact resume."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from curate.errors import LocalFault, RunFailed, UsageError
from curate.progress import Progress, Silent
from curate.stage import fingerprint
from curate.store import sync_file, sync_folder
from curate.train import checkpoint, model
from curate.train.checkpoint import Progressed
from curate.train.data import Batch, Recipe, Source, batches, digest, fits
from curate.train.distributed import World, world
from curate.train.model import Clip
from curate.train.objectives import image_text_contrastive
from curate.train.settings import TrainSettings

REPORT_FILE = "train_report.json"
MAX_LOGIT_SCALE = math.log(100)  # Radford et al. 2021: the temperature is clipped to keep the logits below 100
LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class TrainReport:
    """What a finished run left: `path` loads in open_clip as `local-dir:`; `loss_history` has one loss a step."""

    path: str
    steps: int
    samples_seen: int
    seconds: float  # of the call that finished it, decoding included
    samples_per_second: float
    identity: str
    loss_history: tuple[float, ...]


def train(source: Source, settings: TrainSettings, out: Path | str, progress: Progress | None = None, resume: bool = True) -> TrainReport:
    """Trains a model on `source` and leaves it in `out`; the same call goes on where an earlier one was stopped.

    A finished run with equal settings and data is not repeated: its report is returned; one with others is replaced.
    Raises UsageError when there are fewer samples than one batch holds, IdentityError when `out` holds an unfinished run
    with other settings or data (`resume=False` gives that up), RunFailed when the loss is no longer finite.
    """
    out = Path(out)
    _check(source, settings)
    kept = fits(source, settings, model.image_side(settings.model))
    identity = fingerprint(settings.identity(), digest(source), "in memory" if kept else "streamed")
    earlier = _finished(out)
    if resume and earlier is not None and earlier.identity == identity:
        return earlier
    with _threads(settings.threads), world() as place:
        _check_world(settings, place)
        if place.leads and (earlier is not None or not resume):
            _start_over(out)
        place.wait()
        return _Run(source, settings, out, identity, place, progress or Silent()).finish()


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Rate of 0-based `step`: a linear rise over the warm-up, then half a cosine to zero at `total`."""
    warmup = min(settings.warmup_steps, total // 2)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def parameter_groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """AdamW groups: gains, biases and the temperature (all with fewer than two axes) are not decayed."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


@dataclass
class _Run:
    source: Source
    settings: TrainSettings
    out: Path
    identity: str
    place: World
    progress: Progress
    losses: list[float] = field(default_factory=list)
    waiting: list[torch.Tensor] = field(default_factory=list)  # losses still on the device

    def __post_init__(self) -> None:
        self.clip = model.build(self.settings.model, self.settings.init, self.settings.seed)
        self.clip.network.to(self.place.device)
        self.optimizer = _optimizer(self.clip.network, self.settings)
        self.losses.extend(checkpoint.restore(self.out, self.identity, self.clip, self.optimizer).losses)
        self.network = self.place.wrap(self.clip.network)
        self.normalise = _normaliser(self.clip, self.place.device)
        self.total = self.settings.total_steps(len(self.source))

    def finish(self) -> TrainReport:
        started, first = time.perf_counter(), len(self.losses)
        if first == 0:
            torch.manual_seed(self.settings.seed)
        self.network.train()
        self.progress.start("train", self.total, "steps")
        self.progress.advance("train", first)
        for step, batch in enumerate(self._batches(first), first):
            self._step(step, batch)
            self._keep_up(step + 1)
        self.progress.finish("train")
        return self._report(time.perf_counter() - started, self.total - first)

    def _batches(self, first: int) -> Iterator[Batch]:
        recipe = Recipe.of(self.clip, self.settings, self.place)
        return batches(self.source, recipe, self.settings, self.progress, range(first, self.total))

    def _step(self, step: int, batch: Batch) -> None:
        device = self.place.device
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.total, self.settings)
        with _autocast(self.settings, device):
            images = self.normalise(batch.images.to(device, non_blocking=True))
            image, text, scale = self.network(images, batch.tokens.to(device, non_blocking=True))[:3]
        loss = image_text_contrastive(image.float(), text.float(), scale, self.place.rank, self.place.size)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.grad_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.grad_clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.clip.network.get_parameter("logit_scale").clamp_(0, MAX_LOGIT_SCALE)
        self.waiting.append(loss.detach())

    def _keep_up(self, steps: int) -> None:
        save = steps % self.settings.checkpoint_every_steps == 0 and steps < self.total
        if not (save or steps % LOG_EVERY_STEPS == 0 or steps == self.total):
            return
        done = len(self.waiting)
        self._collect_losses()
        self.progress.advance("train", done, loss=self.losses[-1], lr=learning_rate(steps - 1, self.total, self.settings))
        if save and self.place.leads:
            checkpoint.save(self.out, self.identity, self.clip, self.optimizer, Progressed(steps, tuple(self.losses)))

    def _collect_losses(self) -> None:
        losses = torch.stack(self.waiting)
        if self.place.size > 1:
            torch.distributed.all_reduce(losses)
            losses /= self.place.size
        self.waiting.clear()
        self.losses.extend(losses.tolist())
        if not math.isfinite(self.losses[-1]):
            raise RunFailed(f"the loss is no longer finite at step {len(self.losses)}: lower train.lr, now {self.settings.lr}")

    def _report(self, seconds: float, steps: int) -> TrainReport:
        batch_size = self.settings.batch_size
        speed = steps * batch_size / max(seconds, 1e-9)
        path = str(self.out)
        report = TrainReport(path, self.total, self.total * batch_size, seconds, speed, self.identity, tuple(self.losses))
        if self.place.leads:
            _publish(self.out, self.clip, report)
            checkpoint.clear(self.out)
        self.place.wait()
        return report


def _publish(out: Path, clip: Clip, report: TrainReport) -> None:
    aside = out / ".finished"
    try:
        model.save(clip, aside)
        for name in (model.CONFIG_FILE, model.WEIGHTS_FILE):
            sync_file(aside / name)
            (aside / name).replace(out / name)
        aside.rmdir()
        sync_folder(out)
        checkpoint.replace_file(out / REPORT_FILE, json.dumps(asdict(report)))
    except OSError as error:
        raise LocalFault(f"cannot write the model to {out}: {error.strerror or error}; free space and run again") from error


def _start_over(out: Path) -> None:
    """The report goes first: without it nobody takes what is left for a finished run."""
    (out / REPORT_FILE).unlink(missing_ok=True)
    checkpoint.clear(out)


def _finished(out: Path) -> TrainReport | None:
    try:
        found = json.loads((out / REPORT_FILE).read_text())
        found["loss_history"] = tuple(found["loss_history"])
        report = TrainReport(**(found | {"path": str(out)}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return report if (out / model.WEIGHTS_FILE).exists() else None


def _check(source: Source, settings: TrainSettings) -> None:
    if len(source) < settings.batch_size:
        raise UsageError(f"there are {len(source)} samples, fewer than one batch: set train.batch_size={max(2, len(source) // 2)} or less")


def _check_world(settings: TrainSettings, place: World) -> None:
    if settings.batch_size % place.size:
        raise UsageError(f"train.batch_size={settings.batch_size} cannot be shared by {place.size} processes: make it a multiple")


def _optimizer(network: torch.nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    groups = parameter_groups(network, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)


def _autocast(settings: TrainSettings, device: torch.device) -> contextlib.AbstractContextManager[object]:
    automatic = settings.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    if settings.precision == "amp_bf16" or automatic:
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


class _normaliser:
    """uint8 (n, 3, s, s) on the device → float32 with the model's mean and deviation taken out."""

    def __init__(self, clip: Clip, device: torch.device) -> None:
        self.mean = torch.tensor(clip.mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(clip.std, device=device).view(1, 3, 1, 1) * 255

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() - self.mean) / self.std


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
