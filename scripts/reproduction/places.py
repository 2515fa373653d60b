"""Where the repository keeps what experiments are made of, and the names that all their parts know."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"
EXPERIMENTS = ROOT / "scripts" / "experiments"
STAGES = ("reduce", "pretrain", "evaluate")
ALL = "all"  # in settings: of every data set, method or task
RANDOM = "random"  # the weights of a seed before they are trained
