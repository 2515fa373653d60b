"""HTML pages about the output folders of reductions."""

from lessismore_transforms.report.reduction_page import write_report

__all__ = ["write_report"]
