"""A training process that is killed with no warning, several times, and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.small_dataset import write_point_dataset
from training.learning.config import TrainConfig, dump_config
from training.learning.run import load_run

REPOSITORY = Path(__file__).parents[2]
EVERY = 10  # a checkpoint after every block, so that many kills hit one being written
KILLED_AT = (30, 110, 240)

# The verb `iql-ros train` without its tables; the command line is tested elsewhere.
SCRIPT = """
import sys
from pathlib import Path
from training.learning.config import load_config
from training.learning.train import train

dataset, out, config, resume = sys.argv[1:]
train(Path(dataset), Path(out), load_config(Path(config)), resume=resume == "resume",
      progress=lambda step, losses, rate: print(step, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"dropout": 0.2, "data": "disk"}])
def test_kill_9_loses_one_interval_at_most_and_changes_nothing(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    intervals = {"log_every": EVERY, "evaluate_every": EVERY, "checkpoint_every": EVERY}
    config = TrainConfig(steps=400, hidden=(8,), batch_size=8, **intervals, **changes)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    dataset = write_point_dataset(tmp_path / "data.h5")

    def start(out: str, *, resume: bool) -> subprocess.Popen[str]:
        arguments = [dataset, tmp_path / out, tmp_path / "config.yaml", "resume" if resume else ""]
        command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)

    whole = start("whole", resume=False)
    for i, step in enumerate(KILLED_AT):
        with start("killed", resume=i > 0) as process:
            assert process.stdout is not None
            reached = 0
            while reached < step:
                reached = int(process.stdout.readline())
            time.sleep(0.0013 * i)
            process.kill()
        # Reading refuses a checkpoint that was cut off.
        assert load_run(tmp_path / "killed").step >= reached - EVERY
    with start("killed", resume=True) as process:
        process.communicate()
    whole.communicate()

    assert process.returncode == whole.returncode == 0
    ours, theirs = (load_run(tmp_path / name).learner.state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    killed, untouched = (tmp_path / name / "metrics.jsonl" for name in ("killed", "whole"))
    assert killed.read_bytes() == untouched.read_bytes()
    assert json.loads(killed.read_text().splitlines()[-1])["step"] == 400
