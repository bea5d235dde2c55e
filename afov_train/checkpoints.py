"""What a training leaves in its folder: its state every so many steps, and the result."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from afov.errors import InputError


@dataclass(frozen=True)
class State:
    """Where an interrupted training stopped.

    Attributes:
        step: optimizer steps done.
        network: weights. optimizer, schedule: their states.
    """

    step: int
    network: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]


class Checkpoints(lightning.Callback):
    """Every so many steps the whole state, in one rename: a run can be killed at any moment."""

    def __init__(self, folder: Path, every: int, done: int) -> None:
        self.folder, self.every, self.done = folder, every, done

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """After each batch; the first process writes."""
        step = self.done + trainer.global_step
        final = self.folder / f"checkpoint-{step:07d}"
        if step % self.every or final.exists() or not trainer.is_global_zero:
            return
        partial = self.folder / "checkpoint.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _save_weights(module.network, partial / "network.safetensors")
        optimizer, schedule = trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
        state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({"step": step, **state}, partial / "trainer.pt")
        partial.rename(final)
        for older in _checkpoints(self.folder)[:-1]:
            shutil.rmtree(older)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("checkpoint-*") if re.fullmatch(r"\d{7}", f.name[11:]))


def last_state(folder: Path) -> State | None:
    """What the newest checkpoint holds; None where there is none.

    Raises:
        InputError: it cannot be read.
    """
    found = _checkpoints(folder)
    if not found:
        return None
    try:
        trainer = torch.load(found[-1] / "trainer.pt", weights_only=True)
        return State(network=load_file(found[-1] / "network.safetensors"), **trainer)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{found[-1]}: damaged checkpoint ({error}); delete it") from None


def finished_before(folder: Path, key: str) -> bool:
    """Whether the folder holds the result that `key` stands for; that of another is removed."""
    done = folder / "done.json"
    marked = json.loads(done.read_text()) if done.exists() else {}
    if marked.get("key") != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        done.write_text(json.dumps({"key": key}))
        return False
    return bool(marked.get("finished")) and (folder / "network.safetensors").exists()


def finish(network: nn.Module, folder: Path, key: str) -> None:
    """The result, marked as such; checkpoints are needed no longer."""
    _save_weights(network, folder / "network.safetensors")
    (folder / "done.json").write_text(json.dumps({"key": key, "finished": True}))
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint)


def _save_weights(network: nn.Module, file: Path) -> None:
    partial = file.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, partial)
    partial.replace(file)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of every weight."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
