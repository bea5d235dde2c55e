"""Training: augmentations keep pairs true, losses fall, a killed run goes on as if never killed."""

from __future__ import annotations

import csv
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from afov.config import load_yaml
from afov.errors import InputError
from afov.sources.bags import BagSource
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.config import AugmentConfig, DistillConfig, PretrainConfig, TrainConfig
from afov_train.distill import Distillation, closed_bank, distill
from afov_train.export import export_student
from afov_train.network.unet import build_network
from afov_train.panoptic.config import PanopticConfig
from afov_train.pretrain import categories, contrast, pretrain
from afov_train.sweeps import TaughtSweeps, collate, in_window, without_cuboid
from afov_train.taught import TaughtSweep
from afov_train.teach import teach
from afov_train.teachers import build_teacher
from afov_train.teachers.config import TeacherConfig
from afov_train.training import build_optimizer, check
from tests.afov_train.conftest import ALONE

CONFIG = TrainConfig()


@pytest.fixture(scope="module")
def taught(drive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    vocabulary = Vocabulary.load("nuscenes16")
    teacher = build_teacher(TeacherConfig(overlap=0.0), vocabulary, folder / "teacher")
    return teacher.text_bank, teach(BagSource(drive), teacher, ALONE, folder / "teach")


def sweeps(taught, augment, length=4):
    bank, files = taught
    inputs = CONFIG.network.inputs
    return TaughtSweeps(files, bank.vocabulary, CONFIG.grid, inputs, augment, 0, length)


def fresh(width, seed=0):
    torch.manual_seed(seed)
    return build_network(CONFIG.network, width)


def test_superpoints_hold_the_points_whose_pixels_their_segment_has(taught):
    """A point's label is its last camera's segment, and every pair's segment is its own pixel's."""
    sweep = TaughtSweep.load(taught[1][0])
    point, camera, row, col, segment = sweep.pairs.T
    assert (np.diff(camera) >= 0).all() and set(camera) == set(range(6))
    sizes = sweep.image_sizes[camera]
    assert ((row >= 0) & (row < sizes[:, 0]) & (col >= 0) & (col < sizes[:, 1])).all()
    last = dict(zip(point.tolist(), segment.tolist(), strict=True))
    points = np.array(list(last))
    said = sweep.segment_phrase[np.array([last[p] for p in points.tolist()])]
    assert np.array_equal(sweep.phrase[points], said)
    assert len(point) > len(last), "some points are seen by two cameras"
    norms = np.linalg.norm(sweep.segment_feature, axis=1)
    assert np.allclose(norms, 1, atol=1e-3) and len(norms) == len(sweep.segment_phrase)


def test_pairs_go_with_their_points_through_every_augmentation(taught):
    """A voxel is paired with a superpoint exactly where one of its points is."""
    plain = sweeps(taught, None)
    rough = sweeps(taught, AugmentConfig(cuboid=True, crop=True))
    for visit in range(4):
        whole, part = plain[visit], rough[visit]
        assert int(part.voxel.max()) < len(part.coords)
        assert part.segment.unique().tolist() == list(range(len(part.phrase)))
        # The paired voxels' labels agree with their superpoints' classes as before.
        for sample in (whole, part):
            owner = taught[0].vocabulary.phrase_class_id[sample.phrase.numpy()]
            same = sample.class_id[sample.voxel].numpy() == owner[sample.segment.numpy()]
            assert same.mean() > 0.9
        assert 0.2 < len(part.voxel) / len(whole.voxel) < 1


def test_a_window_and_a_box_are_what_they_say():
    rng = np.random.default_rng(0)
    row, col = (v.ravel() for v in np.mgrid[0:90, 0:160])
    for _ in range(50):
        inside = in_window(row, col, (90, 160), rng)
        assert 0.2 < inside.mean() <= 1
        h, w = np.ptp(row[inside]) + 1, np.ptp(col[inside]) + 1
        assert inside.sum() == h * w, "a rectangle without holes"
    xyz = rng.uniform(-10, 10, (2000, 3)).astype(np.float32)
    for _ in range(20):
        gone = xyz[~without_cuboid(xyz, rng)]
        assert len(gone) < 20 or (np.ptp(gone, axis=0) <= 0.2 * 20).all()
    assert without_cuboid(np.full((5, 3), np.nan, np.float32), rng).all()


def test_collated_pairs_point_into_their_own_sweep(taught):
    data = sweeps(taught, None)
    a, b = data[0], data[1]
    both = collate([a, b])
    assert torch.equal(both.coords[: len(a.coords), 1:], a.coords)
    cut = len(a.voxel)
    assert torch.equal(both.voxel[cut:] - len(a.coords), b.voxel)
    assert torch.equal(both.phrase[both.segment[cut:]], b.phrase[b.segment])
    assert torch.equal(both.coords[both.voxel[cut:]][:, 0], torch.ones(len(b.voxel)).int())


def test_tmp_brings_superpoints_to_their_images_and_words(taught, tmp_path):
    bank, files = taught
    config = PretrainConfig(steps=14, batch=1, augment=AugmentConfig(False, False, 0.0))
    network = fresh(bank.embeddings.shape[1])
    batch = collate([sweeps((bank, files[:1]), None)[0]])
    text, category = torch.from_numpy(bank.embeddings), categories(bank.vocabulary)

    def losses():
        with torch.inference_mode():
            out = network.train()(batch.features, batch.coords, 1)
            return [float(v) for v in contrast(out, batch, text, category, 0.07)]

    before = losses()
    pretrain(network, files[:1], bank, CONFIG.network, CONFIG.grid, config, tmp_path)
    after = losses()
    assert after[0] < before[0] - 0.5 and after[1] < before[1] - 0.5
    # No pair at all: nothing to learn, nothing to crash on.
    empty = batch._replace(
        voxel=batch.voxel[:0], segment=batch.segment[:0],
        feature=batch.feature[:0], phrase=batch.phrase[:0],
    )  # fmt: skip
    out = network(batch.features, batch.coords, 1)
    assert sum(contrast(out, empty, text, category, 0.07)) == 0


@pytest.mark.parametrize("head", ["open", "closed"])
def test_both_heads_learn_export_and_label(taught, tmp_path, head):
    bank, files = taught
    config = DistillConfig(
        steps=12, batch=1, head=head, tmp=0.5, augment=AugmentConfig(False, False, 0.0)
    )
    if head == "closed":
        bank = closed_bank(bank.vocabulary)
    network = fresh(bank.embeddings.shape[1])
    distill(network, files[:1], bank, CONFIG.network, CONFIG.grid, config, tmp_path / "d")
    rows = list(csv.DictReader((tmp_path / "d/from-0/metrics.csv").open()))
    assert float(rows[-1]["loss"]) < 2.8
    sweep = TaughtSweep.load(files[0]).sweep
    model = export_student(
        network, config=CONFIG.network, grid=CONFIG.grid, text_bank=bank,
        temperature=config.temperature, provenance={}, sweep=sweep, folder=tmp_path / "model",
    )  # fmt: skip
    # In float32: 8-bit integers give some of a thousand points another class.
    labels = Student.open(model, "native").label(sweep).class_id
    stage = Distillation(network, bank, torch.ones(17), config)
    batch = collate([sweeps((bank, files[:1]), None, 1)[0]])
    with torch.inference_mode():
        logits = stage.class_logits(network(batch.features, batch.coords, 1))
    voxels = CONFIG.grid.voxelize(sweep.xyz)
    expected = np.append(logits.argmax(1).numpy(), 0)[voxels.inverse]
    assert (labels == expected).mean() > 0.999


def test_absorbed_things_are_learnt_where_asked(taught, tmp_path):
    """The road is called debris: a student that learns absorbed things finds it by that word."""
    bank, files = taught
    sweep = TaughtSweep.load(files[0])
    road = sweep.class_id(bank.vocabulary) == 11
    called = np.where(road, bank.vocabulary.phrases.index("debris"), sweep.phrase)
    replace(sweep, phrase=called.astype(np.int32)).save(tmp_path / files[0].name)
    plain = AugmentConfig(False, False, 0.0)
    config = DistillConfig(steps=14, batch=1, absorbed=True, class_weight="none", augment=plain)
    network, setup = fresh(bank.embeddings.shape[1]), (CONFIG.network, CONFIG.grid)
    distill(network, [tmp_path / files[0].name], bank, *setup, config, tmp_path / "d")
    batch = collate([sweeps((bank, files[:1]), None, 1)[0]])
    with torch.inference_mode():
        cosine = normalize(network(batch.features, batch.coords, 1), dim=1).numpy()
        cosine = cosine @ bank.embeddings.T
    classes = bank.vocabulary.phrase_class_id > 0
    debris = np.array([c.name == "debris" for c in bank.vocabulary.classes for _ in c.phrases])
    found = cosine[:, debris].max(1) > cosine[:, classes].max(1)
    assert found[CONFIG.grid.voxelize(sweep.sweep.xyz).inverse[road]].mean() > 0.6
    assert found[CONFIG.grid.voxelize(sweep.sweep.xyz).inverse[~road]].mean() < 0.4


def test_a_head_of_its_own_rate_and_a_frozen_trunk(taught):
    network = fresh(8)
    rates = replace(CONFIG.distill.optimizer, name="sgd", learning_rate=0.02, head_learning_rate=2)
    groups = build_optimizer(network, rates).param_groups
    assert [g["lr"] for g in groups] == [0.02, 2]
    assert [p.shape for p in groups[1]["params"]] == [(8, 48), (8,)]
    probe = replace(rates, learning_rate=0.0)
    stage = Distillation(
        network, closed_bank(taught[0].vocabulary), torch.ones(17), DistillConfig(optimizer=probe)
    )
    trained = [n for n, p in stage.network.named_parameters() if p.requires_grad]
    assert trained == ["head.weight", "head.bias"]
    assert len(build_optimizer(network, probe).param_groups) == 1


SCRIPT = """
import sys
from pathlib import Path

def main(folder, batch, *files):
    # Here, and not above: every process that is started imports what stands above.
    import numpy as np
    import torch
    from afov.text_bank import TextBank
    from afov.vocabulary import Vocabulary
    from afov_train.config import DistillConfig, TrainConfig
    from afov_train.distill import distill
    from afov_train.network.unet import build_network

    config = TrainConfig()
    vocabulary = Vocabulary.load("nuscenes16")
    text = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), 96))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    torch.manual_seed(0)
    network = build_network(config.network, 96)
    wanted = DistillConfig(steps=6, batch=int(batch), checkpoint=2, tmp=0.3)
    bank = TextBank(vocabulary, text.astype(np.float32))
    files = [Path(f) for f in files]
    distill(network, files, bank, config.network, config.grid, wanted, Path(folder))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def running(group):
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.all_cores
def test_a_killed_run_goes_on_bit_for_bit(taught, tmp_path):
    """SIGKILL after a checkpoint ends all its processes; the weights are those of no kill."""
    batch = min(2, len(os.sched_getaffinity(0)))
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    main = runpy.run_path(str(script))["main"]  # in this process, which has imported torch
    killed = subprocess.Popen(
        [sys.executable, script, tmp_path / "killed", str(batch), *taught[1]],
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "killed").glob("checkpoint-*[0-9]")):
            assert killed.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        deadline = time.monotonic() + 60
        while running(killed.pid):
            assert time.monotonic() < deadline, "its processes go on writing into the folder"
            time.sleep(0.1)
    finally:
        if running(killed.pid):
            os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert not (tmp_path / "killed/network.safetensors").exists()
    for name in ("killed", "whole"):
        main(tmp_path / name, batch, *taught[1])
    assert len(list((tmp_path / "killed").glob("from-*"))) == 2, "it began anew"
    whole, resumed = (load_file(tmp_path / n / "network.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


RANKS = """
import os, sys
from pathlib import Path
import numpy as np
import torch
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov_train import distill
from afov_train.config import DistillConfig, OptimizerConfig, TrainConfig
from afov_train.network.unet import build_network
from afov_train.ranks import on_first, ranks

class Telling(distill.Distillation):
    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        with open(f"{folder}-losses-{ranks()[0]}", "a") as stream:
            stream.write(f"{float(loss.detach())}\\n")
        return loss

if __name__ == "__main__":
    folder, processes, *files = map(str, sys.argv[1:])
    assert ranks()[1] == int(processes)
    assert on_first(lambda: ranks()[0]) == 0
    distill.Distillation = Telling
    config = TrainConfig()
    vocabulary = Vocabulary.load("nuscenes16")
    text = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), 96))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    bank = TextBank(vocabulary, text.astype(np.float32))
    torch.manual_seed(0)
    network = build_network(config.network, 96)
    # AdamW's first steps are signs, which rounding turns over.
    plain = OptimizerConfig(name="sgd", learning_rate=0.02)
    together = DistillConfig(steps=4, batch=2, optimizer=plain)
    one_by_one = DistillConfig(steps=4, batch=1, accumulate=2, optimizer=plain)
    files = [Path(f) for f in files]
    wanted = together if processes == "2" else one_by_one
    distill.distill(network, files, bank, config.network, config.grid, wanted, Path(folder))
"""


@pytest.mark.slow
@pytest.mark.all_cores
def test_two_processes_of_torchrun_give_the_losses_of_one(taught, tmp_path):
    """Each of two takes every other visit; one process takes both before it makes a step."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    files = [str(f) for f in taught[1]]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    subprocess.run([*torchrun, *port, script, tmp_path / "two", "2", *files], check=True)
    subprocess.run([sys.executable, script, tmp_path / "one", "1", *files], check=True)

    def losses(name):
        return [float(line) for line in (tmp_path / name).read_text().split()]

    one = losses("one-losses-0")
    assert len(one) == 8 and len(set(one)) == 8
    assert np.allclose(one[::2], losses("two-losses-0"), rtol=1e-4)
    assert np.allclose(one[1::2], losses("two-losses-1"), rtol=1e-4)
    a, b = (load_file(tmp_path / n / "network.safetensors") for n in ("one", "two"))
    start = fresh(96).state_dict()
    for name in dict(fresh(96).named_parameters()):  # running statistics are each process's own
        assert (a[name] - b[name]).norm() < 0.05 * (a[name] - start[name]).norm(), name


def test_a_batch_that_processes_cannot_share_is_refused_before_the_first_step(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="batch 4: torchrun started 3 processes"):
        check(DistillConfig(batch=4))
    check(DistillConfig(batch=6))


@pytest.mark.parametrize(
    ("kind", "wrong", "why"),
    [
        (DistillConfig, {"steps": 0}, "steps 0"),
        (TrainConfig, {"rounds": 0}, "rounds 0"),
        (PretrainConfig, {"steps": -1}, "steps -1"),
        (PretrainConfig, {"epochs": 0}, "epochs 0"),
        (DistillConfig, {"batch": 0}, "batch 0"),
        (PretrainConfig, {"accumulate": 0}, "accumulate 0"),
        (PanopticConfig, {"checkpoint": 0}, "checkpoint 0"),
    ],
)
def test_settings_that_train_nothing_are_refused(kind, wrong, why):
    with pytest.raises(ValueError, match=why):
        kind(**wrong)


def test_what_is_done_is_not_done_again_and_other_settings_are(taught, tmp_path, capsys):
    bank, files = taught
    config = DistillConfig(steps=2, batch=1)
    network = fresh(bank.embeddings.shape[1])
    arguments = (files[:1], bank, CONFIG.network, CONFIG.grid)
    distill(network, *arguments, config, tmp_path)
    again = fresh(bank.embeddings.shape[1])
    distill(again, *arguments, config, tmp_path)
    assert "distill: done before with the same sweeps and settings" in capsys.readouterr().out
    assert torch.equal(network.head.weight, again.head.weight)
    coarse = VoxelGrid(size=(0.5, 5.0, 0.5))
    for grid, changed in ((coarse, config), (CONFIG.grid, replace(config, steps=3))):
        other = fresh(bank.embeddings.shape[1])
        distill(other, files[:1], bank, CONFIG.network, grid, changed, tmp_path)
        assert "done before" not in capsys.readouterr().out
        assert not torch.equal(normalize(network.head.weight), normalize(other.head.weight))


def test_denormals_are_zero_while_a_network_trains_and_not_afterwards(
    taught, tmp_path, monkeypatch
):
    tiny = torch.tensor(1e-40)
    during, step = [], Distillation.training_step

    def watched(self, batch, number):
        during.append(float(tiny * 1))
        return step(self, batch, number)

    monkeypatch.setattr(Distillation, "training_step", watched)
    bank, files = taught
    network = fresh(bank.embeddings.shape[1])
    config = DistillConfig(steps=2, batch=1)
    distill(network, files[:1], bank, CONFIG.network, CONFIG.grid, config, tmp_path)
    assert during == [0.0, 0.0] and float(tiny * 1) > 0


def test_the_shipped_settings_are_valid_and_the_papers():
    root = Path(__file__).resolve().parents[2] / "config/train"
    paper = load_yaml(TrainConfig, root / "paper.yaml")
    assert paper.pretrain.for_sweeps(24_000).steps == 40 * 24_000 / 16
    assert paper.distill.for_sweeps(24_000).steps == 5 * 24_000 / 16
    assert paper.network.norm_momentum == 0.05 and paper.teach.reach == 0
    small = load_yaml(TrainConfig, root / "small.yaml")
    assert small.pretrain.steps and small.distill.for_sweeps(10) is small.distill
    assert small.rounds == 2 and small.teach.objects
    network = build_network(paper.network, 16)
    momenta = {m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm1d)}
    assert momenta == {0.05}
