"""Runs the toy study in a process of its own: `python -m tests.integration.toy_study FOLDER PAUSE`."""

from __future__ import annotations

import sys
from pathlib import Path

from regap_patch.errors import ReGapError
from regap_patch.study.protocol import read_protocol
from regap_patch.study.study_run import Choice, run_study
from tests.unit.study_pieces import study_of

if __name__ == "__main__":
    root, pause = Path(sys.argv[1]), float(sys.argv[2])
    protocol = read_protocol(root.parent / "toy.yaml")
    try:
        run_study(protocol, study_of(root / "store", pause=pause), root, root / "store", Choice(), jobs=2)
    except ReGapError as error:
        sys.exit(str(error))
