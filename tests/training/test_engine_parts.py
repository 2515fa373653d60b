"""Checkpoint, log, export and early ends, on a training of a few numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from lessismore_transforms.errors import OutputError, UserError
from lessismore_transforms.pretraining.export import BackboneExport, prove_export
from lessismore_transforms.training import run_log
from lessismore_transforms.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lessismore_transforms.training.curves import Curves
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.precision import AutocastInferer, pick_device, place
from lessismore_transforms.training.run_log import RunLog
from lessismore_transforms.training.seeding import SeedIterations, seed_for
from lessismore_transforms.training.stopping import StopAtEnd, StopOnNan, StopOnSignal, conclude, run_rest
from lessismore_transforms.weights.backbones import build_backbone, read_metadata, read_tensors

IDENTITY = {"method": "test", "slices": "0123"}


class Batches:
    """A loader of numbers that depend on the step alone."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.start = plan, 0

    def __len__(self) -> int:
        return self.plan.batches_per_epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in range(self.start + 1, self.plan.iterations + 1):
            yield {"x": torch.randn(4, 3, generator=torch.Generator().manual_seed(step))}


class Training:
    """A trainer with all handlers of a run in `folder`."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        resume: bool = False,
        rate: float = 0.1,
        interval: int = 1,
        minutes: float = 0,
        decay: float = 0.0,
        after: Path | None = None,
        length: dict[str, Any] | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1))
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
        batches = Batches(plan)
        self.log = RunLog(folder, self.optimizer, plan, batch_size=4, settings={"rate": rate}, interval=interval)
        self.checkpoint = Checkpoint(
            folder,
            self.network,
            {"optimizer": self.optimizer, "log": self.log},
            identity=IDENTITY | (length or {}),
            sampler=batches,
            plan=plan,
            resume=resume,
            minutes=minutes,
            after=after,
        )
        self.trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=plan.max_epochs,
            epoch_length=plan.batches_per_epoch,
            train_data_loader=batches,
            network=self.network,
            optimizer=self.optimizer,
            loss_function=lambda prediction, _: prediction.square().mean() + 1,
            prepare_batch=lambda batch, *_, **__: (batch["x"], None),
            accumulation_steps=plan.accumulation,
            decollate=False,
            train_handlers=[
                SeedIterations(0),
                StopOnNan(self.network, interval=3),
                self.log,
                StopOnSignal(plan.accumulation),
                StopAtEnd(plan),
                self.checkpoint,
                Curves(folder),
            ],
        )

    def run(self) -> Training:
        self.trainer.run()
        return self


def at(training: Training, iteration: int, act: Callable[[], Any]) -> None:
    """Do something when an iteration is completed, before the handlers look."""
    training.trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), lambda _: act())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in lines(folder) if "loss" in line]


def terminate(training: Training, iteration: int) -> None:
    at(training, iteration, lambda: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.parametrize("parts", [None, 6])
def test_a_training_says_where_it_is_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, parts: int | None
) -> None:
    """By step and epoch; by step alone where an epoch of a setting is a part of the steps."""
    monkeypatch.setattr(run_log, "_SAID_S", 0.0)
    training = Training(tmp_path, Plan(5, 60, parts=parts), interval=20)
    training.run()
    first, *said, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"training in {tmp_path}: steps 1 to 60 on CPU")
    logged = [line for line in lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in logged] == [20, 40, 60]
    for line, text in zip(logged, said, strict=True):
        assert line["epoch"] == line["step"] / 5  # of the set
        epoch = f", epoch {line['epoch']}" if parts is None else ""
        start = f"step {line['step']} of 60{epoch}: loss {line['loss']:.4f}, learning rate 0.1, "
        assert re.fullmatch(rf"{re.escape(start)}[\d,]+ pictures/s, 0 s left", text)
    assert last == f"finished step 60 of 60: the results are in {tmp_path}"


def test_a_finished_training_says_once_where_the_encoder_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = Training(tmp_path, Plan(2, 4))
    backbone = build_backbone("resnet18", weights="random")
    BackboneExport(tmp_path, backbone, "resnet18", every=1, metadata={}).attach(training.trainer)
    training.run()
    said = capsys.readouterr().out
    assert said.splitlines()[-2:] == [
        f"finished step 4 of 4: the results are in {tmp_path}",
        f"the encoder is in {tmp_path / 'backbone.safetensors'}",
    ]
    assert said.count("encoder") == 1


def test_not_every_line_of_a_log_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Training(tmp_path, Plan(5, 60)).run()
    assert len(losses(tmp_path)) == 60
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]) == 1


@pytest.mark.parametrize("stopped_at", [2, 5, 7])  # within an epoch, at its end, within the next
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(tmp_path: Path, stopped_at: int) -> None:
    plan = Plan(5, 12)
    whole = Training(tmp_path / "whole", plan).run()
    first = Training(tmp_path / "parts", plan)
    terminate(first, stopped_at)
    first.run()
    with pytest.raises(SystemExit) as left:
        conclude(first.trainer)
    assert left.value.code == 128 + signal.SIGTERM
    assert losses(tmp_path / "parts")[-1][0] == stopped_at
    second = Training(tmp_path / "parts", plan, resume=True).run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(1, 13))
    for one, other in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)
    conclude(second.trainer)  # says nothing


def test_lines_longer_than_a_step_are_the_same_means_after_a_resume(tmp_path: Path) -> None:
    plan = Plan(5, 12)
    Training(tmp_path / "whole", plan, interval=4).run()
    first = Training(tmp_path / "parts", plan, interval=4)
    terminate(first, 6)
    first.run()
    Training(tmp_path / "parts", plan, resume=True, interval=4).run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "parts")] == [4, 8, 12]
    one_by_one = Training(tmp_path / "each", plan).run()
    assert one_by_one.log.interval == 1
    each = [loss for _, loss in losses(tmp_path / "each")]
    assert losses(tmp_path / "parts")[0][1] == pytest.approx(sum(each[:4]) / 4)


def test_after_a_kill_the_log_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    plan = Plan(5, 12)
    Training(tmp_path / "whole", plan).run()
    first = Training(tmp_path / "parts", plan)

    def break_off() -> None:
        raise KeyError("killed")

    at(first, 8, break_off)
    with pytest.raises(KeyError):
        first.run()
    assert losses(tmp_path / "parts")[-1][0] == 7
    first.log._file.close()  # as the end of the process would
    Training(tmp_path / "parts", plan, resume=True).run()  # from the end of epoch 1, step 5
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "parts") if line.get("event") == "resume"] == [5]


def test_a_resume_that_cannot_write_keeps_the_log(tmp_path: Path) -> None:
    """As where it is killed before its first line: what stood there is not written again."""
    limits = pytest.importorskip("resource")
    first = Training(tmp_path, Plan(5, 12))
    terminate(first, 7)
    first.run()
    before = (tmp_path / "log.jsonl").read_bytes()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 1.0}\n{"st')  # of a step that comes again
    again = Training(tmp_path, Plan(5, 12), resume=True)
    allowed = limits.getrlimit(limits.RLIMIT_FSIZE)
    limits.setrlimit(limits.RLIMIT_FSIZE, (0, allowed[1]))  # as on a full disk
    try:
        with pytest.raises(OutputError, match="cannot write to"):
            again.run()
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, allowed)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_accumulation_stops_and_logs_at_whole_steps(tmp_path: Path) -> None:
    plan = Plan(4, 8, accumulation=2)
    Training(tmp_path / "whole", plan).run()
    first = Training(tmp_path / "parts", plan)
    terminate(first, 3)  # the second batch of step 2 is still to come
    first.run()
    assert first.trainer.state.iteration == 4
    Training(tmp_path / "parts", plan, resume=True).run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "whole")] == [1, 2, 3, 4]


def test_a_budget_in_steps_ends_within_an_epoch(tmp_path: Path) -> None:
    plan = Plan.of(20, batch_size=4, max_epochs=100, max_steps=7)
    training = Training(tmp_path, plan).run()
    assert training.trainer.state.iteration == 7
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 8))
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["iteration"] == 7
    assert lines(tmp_path)[-1]["event"] == "end"


def test_nan_stops_and_keeps_the_last_good_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = Training(tmp_path, Plan(5, 50))
    at(training, 7, lambda: training.network[0].weight.data.fill_(torch.nan))
    training.run()
    assert training.trainer.state.iteration == 9  # looks every third
    kept = read_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert kept["iteration"] == 5
    assert all(value.isfinite().all() for value in kept["state"]["network"].values())
    with pytest.raises(SystemExit) as left:
        conclude(training.trainer)
    assert left.value.code == 1
    assert "the loss is no finite number at iteration 9" in capsys.readouterr().err
    assert lines(tmp_path)[-1]["event"] == "stop"


def test_a_signal_does_not_save_what_is_spoilt(tmp_path: Path) -> None:
    training = Training(tmp_path, Plan(5, 50))
    at(training, 7, lambda: training.network[0].weight.data.fill_(torch.nan))
    terminate(training, 8)  # the next look for NaN would be at 9
    training.run()
    assert training.trainer.state.iteration == 8
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["iteration"] == 5
    with pytest.raises(SystemExit) as left:
        conclude(training.trainer)
    assert left.value.code == 1


def test_what_belongs_to_the_end_of_an_epoch_is_done_before_a_stop(tmp_path: Path) -> None:
    training = Training(tmp_path, Plan(5, 15))
    ended = []
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: ended.append(engine.state.epoch))
    terminate(training, 5)
    training.run()
    assert (training.trainer.state.iteration, ended) == (5, [1])
    resumed = Training(tmp_path, Plan(5, 15), resume=True)
    resumed.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: ended.append(engine.state.epoch))
    resumed.run()
    assert ended == [1, 2, 3]


def test_a_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    training = Training(tmp_path, Plan(5, 15))
    at(training, 3, lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
    training.run()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["iteration"] == 3


def test_checkpoints_come_by_time_also_within_an_epoch(tmp_path: Path) -> None:
    training = Training(tmp_path, Plan(100, 100), minutes=1e-9)

    def break_off() -> None:
        raise KeyError("killed")

    at(training, 8, break_off)
    with pytest.raises(KeyError):
        training.run()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["iteration"] == 7


def test_a_resumed_optimizer_has_the_settings_of_its_configuration(tmp_path: Path) -> None:
    Training(tmp_path, Plan(5, 10)).run()
    resumed = Training(tmp_path, Plan(5, 15), resume=True, decay=0.25)
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert resumed.optimizer.state[resumed.network[0].weight]["momentum_buffer"].abs().sum() > 0


def test_a_run_that_never_made_a_step_can_begin_again(tmp_path: Path) -> None:
    training = Training(tmp_path, Plan(5, 10))

    def break_off() -> None:
        raise KeyError("refused")

    at(training, 1, break_off)
    with pytest.raises(KeyError):
        training.run()
    training.log._file.close()  # as the end of the process would
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["iteration"] == 0
    assert Training(tmp_path, Plan(5, 10)).run().trainer.state.iteration == 10


def test_a_line_that_was_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    Training(tmp_path, Plan(5, 10)).run()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 10, "lo')
    Training(tmp_path, Plan(5, 15), resume=True).run()
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 16))


def test_curves_that_fail_fail_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "curves.png").mkdir()
    Training(tmp_path, Plan(5, 10)).run()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["iteration"] == 10


def test_weights_that_broke_in_the_last_update_are_not_saved(tmp_path: Path) -> None:
    training = Training(tmp_path, Plan(5, 10))
    end = Events.ITERATION_COMPLETED(once=10)  # the loss of iteration 10 was still finite
    training.trainer.add_event_handler(end, lambda _: training.network[0].weight.data.fill_(torch.inf))
    training.run()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["iteration"] == 5
    with pytest.raises(SystemExit):
        conclude(training.trainer)


def resumed(folder: Path, **changes: Any) -> Any:
    return Training(folder, **({"plan": Plan(5, 12), "resume": True} | changes))


def test_a_complete_training_is_resumed_for_what_comes_after_it(tmp_path: Path) -> None:
    plan = Plan(5, 10)
    trained = Training(tmp_path, plan).run()
    again = resumed(tmp_path, plan=plan, after=tmp_path / "metrics.json")
    run_rest(again.trainer, plan)  # nothing
    assert again.trainer.state.iteration == 10
    for name, value in trained.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
    (tmp_path / "metrics.json").touch()
    with pytest.raises(ValueError, match=r"is finished, 10 of 10 iterations"):
        resumed(tmp_path, plan=plan, after=tmp_path / "metrics.json")
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"is finished, 10 of 5 iterations"):  # not what was asked for
        resumed(tmp_path, plan=Plan(5, 5), after=tmp_path / "metrics.json")
    fresh = Training(tmp_path / "other", plan)
    run_rest(fresh.trainer, plan)
    assert fresh.trainer.state.iteration == 10


def test_resume_refuses_what_is_not_its_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a checkpoint to resume at .* found none"):
        resumed(tmp_path)
    Training(tmp_path, Plan(5, 10)).run()
    with pytest.raises(ValueError, match=r"is finished, 10 of 10 iterations: give a larger max_epochs"):
        resumed(tmp_path, plan=Plan(5, 10))
    with pytest.raises(ValueError, match=r"found a run in .* already: --resume True"):
        resumed(tmp_path, resume=False)
    path = tmp_path / "checkpoints" / "last.pt"
    content = torch.load(path, weights_only=True)
    write_checkpoint(path, {**content, "identity": IDENTITY | {"method": "moco"}})
    with pytest.raises(ValueError, match="expected to go on with method 'test', found 'moco'"):
        resumed(tmp_path)
    write_checkpoint(path, {**content, "state": content["state"] | {"network": {"0.weight": torch.zeros(2)}}})
    with pytest.raises(ValueError, match="expected the network of this configuration"):
        resumed(tmp_path)
    write_checkpoint(path, {"weights": torch.zeros(1)})
    with pytest.raises(ValueError, match="found something else"):
        resumed(tmp_path)


def test_a_checkpoint_from_before_there_was_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It did what is the default now."""
    Training(tmp_path, Plan(5, 10)).run()
    monkeypatch.setitem(IDENTITY, "sampling", "rotate")
    with pytest.raises(ValueError, match="expected to go on with sampling 'rotate', found 'random'"):
        resumed(tmp_path)
    monkeypatch.setitem(IDENTITY, "sampling", "random")
    assert resumed(tmp_path).trainer.state.iteration == 10


@pytest.mark.parametrize("damage", ["a byte", "the end", "all", "an object"])
def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path: Path, damage: str) -> None:
    Training(tmp_path, Plan(5, 10)).run()
    path = tmp_path / "checkpoints" / "last.pt"
    assert torch.load(path, weights_only=True)["iteration"] == 10  # the checksum is in no reader's way
    data = bytearray(path.read_bytes())
    expected = "expected a checkpoint with its checksum in"
    if damage == "an object":
        write_checkpoint(path, {"format": 1, "iteration": SimpleNamespace()})
        expected = "found types.SimpleNamespace, which is not known to be safe and was not executed"
    else:
        places = range(0, len(data), len(data) // 25) if damage == "a byte" else [0]
        for place in places:
            changed = bytearray(data)
            changed[place] ^= 4
            path.write_bytes({"a byte": changed, "the end": data[:-1], "all": b""}[damage])
            with pytest.raises(UserError, match=expected):
                read_checkpoint(path)
    with pytest.raises(UserError, match=expected) as refused:
        read_checkpoint(path)
    text = str(refused.value)
    assert "another output_dir" in text
    assert str(path) in text
    assert "weights_only" not in text
    assert "\n" not in text


def test_a_longer_plan_goes_on(tmp_path: Path) -> None:
    """Of a fine-tuning, whose length is no part of what a run is."""
    Training(tmp_path, Plan(5, 10)).run()
    longer = Training(tmp_path, Plan(5, 15), resume=True).run()
    assert longer.trainer.state.iteration == 15
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 16))


def test_a_run_that_cannot_be_made_longer_is_not_advised_to_be(tmp_path: Path) -> None:
    """The plan of a pre-training is a part of it: learning rates follow its length."""
    length = {"max_epochs": 2, "max_steps": None}
    Training(tmp_path, Plan(5, 10), length=length).run()
    with pytest.raises(ValueError, match=r"is finished, 10 of 10 iterations: name another output_dir$"):
        Training(tmp_path, Plan(5, 10), resume=True, length=length)
    with pytest.raises(ValueError, match="expected to go on with max_epochs 3, found 2"):
        Training(tmp_path, Plan(5, 15), resume=True, length=length | {"max_epochs": 3})


def test_a_disk_without_room_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OutputError, match=r"found 0.00 GiB free: make room"):
        Training(tmp_path, Plan(5, 10)).run()
    assert losses(tmp_path) == []


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    first = Training(tmp_path, Plan(5, 10))
    second = Training(tmp_path, Plan(5, 10))
    at(first, 2, second.run)
    with pytest.raises(OutputError, match="another run is writing"):
        first.run()


def test_config_and_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Training(tmp_path, Plan(5, 10)).run()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"] == {"rate": 0.1} == lines(tmp_path)[0]["settings"]
    assert config["plan"] == {"steps": 10, "epochs": 2, "steps_per_epoch": 5}
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(step, pytest.approx(loss)) for step, loss in losses(tmp_path)]


def test_seeds_depend_on_every_part() -> None:
    seeds = {seed_for(*parts) for parts in [("a", 0, 1), ("a", 1, 0), ("b", 0, 1), ("a", 0, 11), ("a", 1)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for("iteration", 0, 0, 1) == 5475216164123361058


def engine(epoch: int = 3, iteration: int = 30) -> Any:
    return SimpleNamespace(state=SimpleNamespace(epoch=epoch, iteration=iteration))


def test_export_writes_what_loads_strictly(tmp_path: Path) -> None:
    backbone = build_backbone("resnet18", weights="random", seed=3)
    export = BackboneExport(tmp_path, backbone, "resnet18", every=3, metadata={"method": "swav", "mean": [0.18]})
    export._prove(engine())
    assert list(tmp_path.rglob("*.safetensors")) == []
    for epoch in (3, 6):
        export(engine(epoch))
    assert sorted(path.name for path in (tmp_path / "backbones").iterdir()) == [
        "epoch_0003.safetensors",
        "epoch_0006.safetensors",
    ]
    export._end(engine())
    path = tmp_path / "backbone.safetensors"
    loaded = build_backbone("resnet18", weights=path)
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(picture), backbone.eval()(picture))
    found = read_metadata(path)
    assert found["method"] == "swav"
    assert found["mean"] == [0.18]
    assert (found["backbone"], found["epoch"], found["iteration"]) == ("resnet18", 3, 30)
    size = sum(value.numel() * value.element_size() for value in read_tensors(path).values())
    assert export.bytes_to_come(Plan(1, 7)) == 3 * size  # epochs 3, 6 and the last


def test_export_refuses_a_backbone_that_a_file_does_not_hold(tmp_path: Path) -> None:
    backbone = build_backbone("resnet18", weights="random")
    backbone.relu = nn.LeakyReLU(0.5)  # no weight of it is in the file
    with pytest.raises(ValueError, match="this network keeps something outside of its weights"):
        BackboneExport(tmp_path, backbone, "resnet18", metadata={})._prove(engine())
    backbone.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="2 unknown, first extra"):
        BackboneExport(tmp_path, backbone, "resnet18", metadata={})._prove(engine())


def test_resnet50_has_the_318_tensors_of_torchvision(tmp_path: Path) -> None:
    backbone = build_backbone("resnet50", weights="random")
    BackboneExport(tmp_path, backbone, "resnet50", metadata={})._end(engine())
    assert len(read_tensors(tmp_path / "backbone.safetensors")) == 318
    prove_export(backbone, "resnet50", tmp_path / "backbone.safetensors")


class Unmoved(nn.Sequential):
    """A network that is on any device already."""

    def to(self, **_: Any) -> Unmoved:
        return self


def test_batch_norms_of_several_processes_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def norm(device: str, **options: bool) -> type:
        monkeypatch.setattr("lessismore_transforms.training.precision.pick_device", lambda _: torch.device(device))
        return type(place(Unmoved(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), device, **options)[1])

    assert norm("cuda", sync_batch_norm=True) is nn.SyncBatchNorm
    assert norm("cuda") is nn.BatchNorm2d
    assert norm("cpu", sync_batch_norm=True) is nn.BatchNorm2d  # where PyTorch has none


def test_precision() -> None:
    layer = nn.Linear(4, 4)
    assert AutocastInferer("cpu", "fp32")(torch.ones(1, 4), layer).dtype == torch.float32
    assert AutocastInferer("cpu", "bf16")(torch.ones(1, 4), layer).dtype == torch.bfloat16
    assert AutocastInferer("cpu").dtype is None  # auto: float32 without a GPU
    with pytest.raises(ValueError, match="expected a GPU for precision fp16"):
        AutocastInferer("cpu", "fp16")
    with pytest.raises(ValueError, match="found 'half'"):
        AutocastInferer("cpu", "half")
    for device in ("cuda:77", "meta", "hpu", "abacus"):
        with pytest.raises(UserError, match=f"expected a device that this machine has, found '{device}'"):
            pick_device(device)


def test_signals_are_left_alone_outside_of_the_main_thread() -> None:
    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    before = handlers()
    seen: list[list[Any]] = []
    engine = Engine(lambda *_: seen.append(handlers()))
    StopOnSignal().attach(engine)
    thread = threading.Thread(target=engine.run, args=([0], 1))
    thread.start()
    thread.join()
    assert seen == [before]  # it ran, and nothing was installed
    assert handlers() == before
