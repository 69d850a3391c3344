"""What a trained classifier gets wrong. The parts that need torch or matplotlib are loaded when they are asked for."""

from metaformer_ablate.tasks.classification.error_analysis.command import ErrorAnalysis, check_probes
from metaformer_ablate.tasks.classification.error_analysis.report import REPORT_COLUMNS, REPORT_NOTE, report_line

__all__ = ["REPORT_COLUMNS", "REPORT_NOTE", "ErrorAnalysis", "check_probes", "report_line"]
