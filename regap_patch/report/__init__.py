"""From files that runs left to figures and tables: without torch, on a laptop, from yesterday's files."""

from __future__ import annotations

from regap_patch.lazy import lazy_exports

_HOMES = {
    "RunLog": "runs",
    "read_run": "runs",
    "read_runs": "runs",
    "draw_runs": "plots",
    "plot_runs": "plots",
    "MirFile": "mir_files",
    "is_mir_file": "mir_files",
    "read_mir_file": "mir_files",
    "read_mir_files": "mir_files",
    "draw_mir": "mir_plots",
    "plot_mir": "mir_plots",
    "Evaluation": "run_folder",
    "read_evaluation": "run_folder",
    "score_run": "metrics",
    "exit_code": "metrics",
    "compare_runs": "compare",
    "write_report": "writing",
    "plan_run": "plan",
    "plan_lines": "plan",
    "write_sheet": "labels",
    "read_sheet": "labels",
    "validate_judges": "people",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
