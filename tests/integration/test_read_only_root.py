"""The programs as the manifests run them: not root, nothing to write to but two folders."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.db.models import Model
from tests.integration.api.problems import picture
from tests.integration.cluster import Cluster, running, upload
from tests.integration.job_engine import wait_until
from tests.network_hosts import network, why_not

DATA = Path("/mnt")  # an empty folder that every system has
USER = 10001
AS_SHIPPED = {"data_dir": DATA, "export_onnx": True, "ready_process": True}
reason = why_not() or ("" if shutil.which("setpriv") else "needs the program setpriv")
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)
# Seen by this process and its children alone: DATA is writable, all else of the root is not. The
# one capability lets it read a Python that lies in root's home; it writes nothing by it.
CONFINED = f"""
mount --make-rprivate /
mount -t tmpfs -o uid={USER},gid={USER},mode=0700 tmpfs {DATA}
mount -o remount,bind,ro /
export HOME={DATA} TMPDIR={DATA}/tmp
cd {DATA}
exec setpriv --reuid={USER} --regid={USER} --clear-groups --securebits=+no_setuid_fixup \\
  --inh-caps=-all,+dac_read_search --ambient-caps=+dac_read_search --no-new-privs \\
  -- sh -ec 'mkdir -p $TMPDIR; if touch /tmp/x; then exit 1; fi; exec "$@"' confined "$@"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with network(hosts=1) as made, running(made, tmp_path) as cluster:
        inside = ["unshare", "--mount", "sh", "-ec", CONFINED, "confined"]
        for name in ("api", "beat", "worker"):
            cluster.start(name, made.hub, inside=inside, **AS_SHIPPED)
        made.hub.wait_for_port(cluster.settings.port)
        upload(cluster, made.hosts[0])
        yield cluster


def test_a_model_is_made_and_serves(cluster: Cluster) -> None:
    job_id = cluster.order("finetune", method="full", epochs=1, baseline=False)
    cluster.wait(job_id, "succeeded", seconds=120)
    with cluster.sessions.begin() as session:
        model = session.scalars(select(Model).where(Model.job_id == job_id)).one()
    assert model.manifest["onnx"] == {"exported": True, "reason": None}
    images = [base64.b64encode(picture(1)).decode()]

    def ask() -> Any:
        return cluster.network.hosts[0].ask(
            "POST", "/predict", cluster.key, model=str(model.id), images=images
        )

    (item,) = ask()["items"]
    assert item["label"].startswith("digit ")
    ready: Any = cluster.network.hub.ask("GET", "/readyz", cluster.key)
    assert ready["ready"] is True
    wait_until(lambda: "sweep" in cluster.log(), "a sweep")
