"""Two hosts with a worker each, one of which is cut off in the middle of a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from sqlalchemy import select

from core.db.models import Model
from tests.integration.cluster import Cluster, running, upload
from tests.integration.job_engine import children_of, gone, wait_until
from tests.network_hosts import Host, network, why_not

MINUTES = 0.2  # of training, however fast the machine, both attempts together
reason = why_not()
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with network(hosts=2) as made, running(made, tmp_path) as cluster:
        for name in ("api", "beat"):
            cluster.start(name, made.hub)
        made.hub.wait_for_port(cluster.settings.port)
        upload(cluster, made.hosts[1])
        yield cluster


def test_a_job_of_a_host_that_is_cut_off_goes_on_elsewhere(cluster: Cluster) -> None:
    workers = {cluster.start("worker", host): host for host in cluster.network.hosts}
    job_id = cluster.order(budget_minutes=MINUTES)
    row = cluster.wait(job_id, "running")
    first = workers.pop(int((row.worker or "").partition(":")[2]))
    ((other_pid, other),) = workers.items()
    saved = has_saved(cluster, first, job_id)
    (child,) = children_of(job_id)

    cluster.network.plug(first, in_it=False)
    row = cluster.wait(job_id, "running", attempt=2)
    assert gone(child), "it has ended before another one may begin"
    assert row.worker is not None
    assert row.worker.endswith(f":{other_pid}")
    row = cluster.wait(job_id, "succeeded", attempt=2, seconds=120)
    assert "checkpoint fetched" in job_log(cluster, other, job_id), "from the store, not anew"
    assert saved > 0

    cluster.network.plug(first, in_it=True)
    psutil.Process(other_pid).terminate()
    later = cluster.order(epochs=1)
    row = cluster.wait(later, "succeeded", seconds=120)
    assert not (row.worker or "").endswith(f":{other_pid}"), "the first worker is back"
    row = cluster.job(job_id)
    assert (row.state, row.attempt) == ("succeeded", 2), "nothing that came late was taken"
    with cluster.sessions.begin() as session:
        models = session.scalars(select(Model).where(Model.job_id == job_id)).all()
    assert len(models) == 1
    answer = cluster.network.hub.ask("GET", f"/models/{models[0].id}", cluster.key)
    assert answer["job_id"] == str(job_id)


def has_saved(cluster: Cluster, host: Host, job_id: UUID) -> int:
    """Steps of a checkpoint that was copied into the object store."""

    def copied() -> bool:
        return "checkpoint copied" in job_log(cluster, host, job_id)

    wait_until(copied, "a checkpoint in the store", seconds=60, show=cluster.log)
    return int((cluster.job(job_id).progress or {}).get("step", 0))


def job_log(cluster: Cluster, host: Host, job_id: UUID) -> str:
    path = cluster.folder / f"worker-{host.name}" / "logs" / "jobs" / f"{job_id}.log"
    return path.read_text() if path.exists() else ""
