"""The documents' own commands, pasted in order into a shell beside a running service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DATA = ROOT / "docs" / "data.md"
SEARCH = ROOT / "docs" / "search.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_SECONDS = 300  # a minute on two cores that nothing else uses


def bash_blocks(document: Path) -> list[str]:
    return BLOCK.findall(document.read_text(encoding="utf-8"))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    """The address of `fewlabels up` on a free port."""
    command = [sys.executable, "-m", "core.cli", "up", "--port", "0"]
    folder = tmp_path / "data"
    process = subprocess.Popen(
        [*command, "--data-dir", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if found := re.search(r"is up at (http\S+)", line):
                break
        else:
            pytest.fail(f"up did not come up: {printed}")
        yield found.group(1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def paste(blocks: list[str], api: str, folder: Path) -> list[str]:
    """Run the blocks in one shell; what each of them printed."""
    mark = "--- end of block ---"
    # A shell does not end at a line that fails; a reader would, and so does the test.
    script = "set -o pipefail\ntrap 'echo \"line failed: $BASH_COMMAND\" >&2; exit 1' ERR\n"
    script += "".join(f"{block}echo; echo '{mark}'\n" for block in blocks)
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "API": api,
        "EPOCHS": "1",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["timeout", str(RUN_SECONDS), "bash", "-c", script]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return [printed.strip() for printed in result.stdout.split(mark)[:-1]]


def test_five_minutes_over_curl(api: str, tmp_path: Path) -> None:
    blocks = [*bash_blocks(README), *bash_blocks(SEARCH)]
    printed = dict(zip(blocks, paste(blocks, api, tmp_path), strict=True))

    def after(word: str) -> str:
        (found,) = (text for block, text in printed.items() if word in block)
        return found

    upload, labels = map(json.loads, after("digits.zip; echo").split("\n")[:2])
    assert (upload["rejected"], upload["added"] + upload["duplicates"]) == (0, 1297)
    assert labels["labelled"] == 50
    assert "pretrain=succeeded finetune=succeeded distill=succeeded" in after("grep -qE")
    answer, dimension = after("/predict").split("\n")[:2]
    item = json.loads(answer)["items"][0]
    assert item["label"] in set("0123456789")
    assert len(item["predictions"]) == 3
    assert int(dimension) > 0
    # The page on search goes on from there.
    assert "'vectors': 1297" in after('"index\\": \\"hnsw')
    # By an id, and by the file of a form.
    for near in map(json.loads, after("nearest.json").split()):
        assert (near["method"], len(near["items"])) == ("hnsw", 3)
    assert after("rows.csv").startswith("row,image_id,")
    assert "'seen_in_training': 50" in after("/evaluate")


def test_the_page_on_data(api: str, tmp_path: Path) -> None:
    readme = bash_blocks(README)
    (uploaded,) = (place for place, block in enumerate(readme) if "digits.zip; echo" in block)
    blocks = [*readme[: uploaded + 1], *bash_blocks(DATA)]
    printed = dict(zip(blocks, paste(blocks, api, tmp_path), strict=True))

    def after(word: str) -> list[Any]:
        (found,) = (text for block, text in printed.items() if word in block)
        return [json.loads(line) for line in found.split("\n")]

    (part,) = after("partial=true")
    assert (part["labelled"], part["rejected"]) == (50, 1)
    (folders,) = after("labels=folders")
    assert folders["added"] == folders["labelled"] == 500
    (again,) = after("-o labels.csv")
    assert (again["labelled"], again["rejected"]) == (550, 0)
    (history,) = after("labels/history")
    assert [item["from_label"] for item in history["items"]] == [None] * 3
    assert after("splits.csv")[0]["splits"] == 500
    snapshot, page = after("/items?limit=3")
    assert snapshot["splits"]["test"] == {"images": 500, "labels": 500}
    assert len(page["items"]) == 3
