"""What the configurations of all bundles share: `$import lessismore_transforms.bundle as lm`."""

from lessismore_transforms.bundle.caller import configuration
from lessismore_transforms.bundle.overrides import check_overrides, check_settled
from lessismore_transforms.bundle.settings import read_settings
from lessismore_transforms.bundle.start import distributed, join_processes, leave_processes, process_device, seed_all
from lessismore_transforms.options import parse_bool
from lessismore_transforms.training.parameter_groups import parameter_groups
from lessismore_transforms.training.precision import pick_device, place
from lessismore_transforms.training.processes import process_count
from lessismore_transforms.training.stopping import conclude, run_rest, stopped
from lessismore_transforms.weights.backbones import build_backbone, feature_size

__all__ = [
    "build_backbone",
    "check_overrides",
    "check_settled",
    "conclude",
    "configuration",
    "distributed",
    "feature_size",
    "join_processes",
    "leave_processes",
    "parameter_groups",
    "parse_bool",
    "pick_device",
    "place",
    "process_count",
    "process_device",
    "read_settings",
    "run_rest",
    "seed_all",
    "stopped",
]
