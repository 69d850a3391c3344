"""What a trained detector gets wrong. What needs torch or matplotlib is loaded when it is asked for."""

from metaformer_ablate.tasks.detection.error_analysis.command import ErrorAnalysis, check_probes
from metaformer_ablate.tasks.detection.error_analysis.report import REPORT_COLUMNS, REPORT_NOTE, report_line

__all__ = ["REPORT_COLUMNS", "REPORT_NOTE", "ErrorAnalysis", "check_probes", "report_line"]
