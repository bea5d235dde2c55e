"""A tiny simulated drive and a small untrained model, made once; and how to spoil a bag."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from mcap.reader import make_reader
from mcap.writer import Writer

from afov.frames import Sweep
from afov.sources.nuscenes import NuScenesSource
from afov.student import Labels
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train import export
from afov_train.config import TeachConfig
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import build_network
from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import simulate
from afov_train.simulation.write_mcap import write_mcap
from afov_train.simulation.write_nuscenes import write_nuscenes

# Every sweep is labelled by itself.
ALONE = TeachConfig(agreement=False, keep=1.0, vote=0.0, objects=False)


@pytest.fixture(autouse=True)
def one_core(request):
    """A test has a core, of which pytest-xdist's workers have one each, and trains in one process.

    Starting processes that share a step takes longer than all steps of most tests.
    """
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    if not request.node.get_closest_marker("all_cores"):
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        os.sched_setaffinity(0, {sorted(cores)[worker % len(cores)]})
        torch.set_num_threads(1)
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def frames():
    """Two streets, two frames each, a second apart: each image has one sweep that it belongs to."""
    config = SimConfig(4, 2, frames_per_street=2, rate=1.0, width=400, height=224, workers=1)
    return list(simulate(config))


@pytest.fixture(scope="session")
def drive(frames, tmp_path_factory):
    """The same as a ROS 2 MCAP."""
    file = tmp_path_factory.mktemp("drive") / "drive.mcap"
    write_mcap(frames, file)
    return file


@pytest.fixture(scope="session")
def tree(frames, tmp_path_factory):
    """The same as a nuScenes tree of two scenes."""
    root = tmp_path_factory.mktemp("tree") / "nuscenes"
    write_nuscenes(frames, root, per_scene=2, rate=1.0)
    return root


def open_tree(root, **options):
    """The split of both scenes, with truth."""
    return NuScenesSource(root, "v1.0-mini", "mini_val", truth=True, **options)


def labels_of(class_id, instance_id=None):
    """Labels as a student gives them, of which only classes and instances matter."""
    nothing = np.zeros((0, 4), np.float32)
    inverse = np.full(len(class_id), -1)
    return Labels(class_id, np.ones(len(class_id)), nothing, inverse, {}, instance_id)


def copied(source, target, keep=lambda topic, data: data, profile="ros2"):
    """A copy of an MCAP; `keep` may change a message's bytes or drop it with None."""
    with source.open("rb") as stream, target.open("wb") as out:
        writer = Writer(out)
        writer.start(profile=profile)
        channels = {}
        for schema, channel, message in make_reader(stream).iter_messages():
            data = keep(channel.topic, message.data)
            if data is None:
                continue
            if channel.id not in channels:
                kind = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, "cdr", kind)
            writer.add_message(channels[channel.id], message.log_time, data, message.publish_time)
        writer.finish()
    return target


def street(points=4000, seed=0):
    """Rings on the ground and walls beside it, with a few faulty points."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-np.pi, np.pi, points)
    rho = np.minimum(rng.choice([4, 6, 9, 14, 22], points), 8 / np.maximum(abs(np.sin(angle)), 0.1))
    z = np.where(rho < 20, -1.8, rng.uniform(-1.8, 3, points)) + rng.normal(0, 0.02, points)
    xyzi = np.stack((rho * np.cos(angle), rho * np.sin(angle), z, rng.uniform(0, 255, points)), 1)
    xyzi[::500, 0] = np.nan
    return Sweep(xyzi.astype(np.float32), ("x", "y", "z", "intensity"), 1, "lidar")


def bank(width=24):
    vocabulary = Vocabulary.load("nuscenes16")
    rows = np.random.default_rng(1).normal(size=(len(vocabulary.phrases), width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return TextBank(vocabulary, rows.astype(np.float32))


def lived_in(network):
    """A network whose BatchNorms have seen something, so that folding them matters."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network


def exported(network, folder, sweep):
    return export.export_student(
        network, config=NetworkConfig(), grid=VoxelGrid(), text_bank=bank(), temperature=0.07,
        provenance={"test": "yes"}, sweep=sweep, folder=folder,
    )  # fmt: skip


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """The default network with random weights, exported."""
    network = lived_in(build_network(NetworkConfig(), 24))
    return exported(network, tmp_path_factory.mktemp("export") / "model", street())
