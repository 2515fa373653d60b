"""The picture of a run's log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lessismore_transforms.cli.main import main
from lessismore_transforms.training.curves import _panels, draw_curves, length_until, read_log

LINES = [
    {"event": "begin", "step": 0},
    {"step": 0, "epoch": 0, "probe_accuracy": 0.3, "probe_majority": 0.25},
    *({"step": step, "epoch": 1, "learning_rate": 0.1, "loss": 6.2 / step, "loss_constant": 6.2} for step in (1, 2)),
    {"step": 2, "epoch": 1, "advice": "keep fewer slices"},
    {"event": "end", "step": 2},
]


def write_log(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES), encoding="utf-8")
    return folder


def test_what_people_look_for_comes_first() -> None:
    assert _panels(LINES) == ["loss", "probe_accuracy", "learning_rate"]


def test_one_run_and_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write_log(tmp_path / "a" / "run"), write_log(tmp_path / "b" / "run")
    assert main(["curves", str(one)]) == 0
    assert f"curves: {one / 'curves.png'}" in capsys.readouterr().out
    with Image.open(one / "curves.png") as single, Image.open(draw_curves([one, other], tmp_path / "both.png")) as both:
        assert single.size == both.size == (1260, 260)
        assert single.tobytes() != both.tobytes()


def test_bad_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", str(tmp_path)]) == 2
    assert "expected the folder of a training run with log.jsonl" in capsys.readouterr().err
    (tmp_path / "log.jsonl").write_text('{"event": "begin", "step": 0}\n')
    with pytest.raises(ValueError, match="found none; wait for a line"):
        draw_curves([tmp_path], tmp_path / "none.png")
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nloss 3\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"expected JSON in line 2 of .*, found 'loss 3'"):
        read_log(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step"')  # cut off by a kill
    assert read_log(tmp_path) == [{"step": 1}]


@pytest.mark.parametrize("rest", ['{"step"', '{"step": 2}', "{\n"])  # what a kill left
def test_the_length_of_a_log_until_a_step(tmp_path: Path, rest: str) -> None:
    whole = ['{"event": "begin", "step": 0, "of": "é\u2028"}\n', '{"step": 1}\n', '{"step": 2, "loss": 3}\n']
    (tmp_path / "log.jsonl").write_text("".join(whole) + rest, encoding="utf-8", newline="")
    sizes = [len(line.encode()) for line in whole]
    assert [length_until(tmp_path, step) for step in range(-1, 5)] == [
        0, sizes[0], sum(sizes[:2]), sum(sizes), sum(sizes), sum(sizes)
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["7", '"x"', "null", "[]", '{"step": "x", "loss": 1}', "{", '{"loss": 2.0}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_log(tmp_path / "run")
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    (run / "log.jsonl").write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n", encoding="utf-8")
    assert main(["curves", str(run)]) == 2
    assert f"line 3 of {run / 'log.jsonl'}" in capsys.readouterr().err


def test_a_value_that_is_no_number_is_not_drawn(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run")
    with (run / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "loss": "x"}\n')
    assert draw_curves([run], tmp_path / "a.png").is_file()
