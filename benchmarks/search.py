"""How fast is the nearest found among stored vectors, and how often is it the right one?

Vectors of Fashion-MNIST by the encoder of `benchmarks.label_efficiency`, stored as an embed job
stores them, in an embedded Postgres; then the same questions to every vector and to the index, ten
neighbours each. The limit is the matrix product over all vectors in this process, in float32, with
no database: what an exact search costs at least. Recall is measured against that.

Run with: python -m benchmarks.search [--count 50000] [--queries 200]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.cells import RESULTS, versions
from benchmarks.datasets import load
from benchmarks.label_efficiency.encoder import Kept
from benchmarks.label_efficiency.recipes import recipe
from benchmarks.made_up import add_model
from core.auth import ensure_project
from core.config import load_settings
from core.db.migrating import upgrade
from core.db.models import Dataset, Image
from core.db.session import make_engine, session_factory
from core.embedded.servers import start_servers
from core.learning.evaluation import features
from core.search.index import build_index, index_name
from core.search.nearest import Question, search_all, search_index
from core.search.stored import VectorSet, put_vectors

NEIGHBOURS = 10
CHUNK = 1000
EFFORTS = (40, 100, 400)
Vectors = NDArray[np.float32]


def make_vectors(count: int) -> Vectors:
    """Unit vectors (count, D) of real images."""
    dataset = load("fashion-mnist")
    encoder = Kept(RESULTS / "labels" / dataset.name, recipe(dataset.name).pretrain).load(dataset)
    vectors = features(encoder.encoder, dataset.pool[:count], dataset.preprocessing).numpy()
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def store(session: Session, vectors: Vectors) -> tuple[VectorSet, dict[UUID, int], float]:
    """Rows for images that look like uploaded ones; ids by row, and the seconds of the vectors."""
    project = ensure_project(session, "bench")
    dataset = Dataset(
        project_id=project, name="bench", test_fraction=0.0, validation_fraction=0.0, id=uuid4()
    )
    session.add(dataset)
    session.flush()
    model = add_model(session, project, stage="pretrain", kind="encoder", manifest={})
    rows: dict[UUID, int] = {}
    seconds = 0.0
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        images = [_image(dataset.id, start + row) for row in range(len(part))]
        session.add_all(images)
        session.flush()
        ids = [image.id for image in images]
        rows.update({image_id: start + row for row, image_id in enumerate(ids)})
        began = time.perf_counter()
        put_vectors(session, model, dataset.id, image_ids=ids, vectors=list(part))
        seconds += time.perf_counter() - began
    return VectorSet(model.id, dataset.id), rows, seconds


def _image(dataset_id: UUID, row: int) -> Image:
    digest = hashlib.sha256(str(row).encode()).hexdigest()
    sizes = {"width": 28, "height": 28, "byte_count": 600}
    return Image(
        id=uuid4(), dataset_id=dataset_id, sha256=digest, format="PNG", greyscale=True, **sizes
    )


def limit(vectors: Vectors, asked: Vectors) -> tuple[list[set[int]], list[float]]:
    """The true neighbours by rows, each question without itself, and milliseconds a question."""
    truth, times = [], []
    for question in asked:
        began = time.perf_counter()
        near = vectors @ question
        best = np.argpartition(-near, NEIGHBOURS + 1)[: NEIGHBOURS + 1]
        best = best[np.argsort(-near[best])]
        times.append((time.perf_counter() - began) * 1000)
        truth.append({int(row) for row in best[1:]})
    return truth, times


def ask(
    search: Callable[[UUID, NDArray[np.floating[Any]]], Any],
    questions: list[tuple[UUID, NDArray[np.floating[Any]]]],
    rows: dict[UUID, int],
    truth: list[set[int]],
) -> dict[str, float]:
    """Recall and the milliseconds of a search."""
    hits, times = 0, []
    for (image_id, vector), right in zip(questions, truth, strict=True):
        began = time.perf_counter()
        found = search(image_id, vector)
        times.append((time.perf_counter() - began) * 1000)
        hits += len(right & {rows[row.image_id] for row in found})
    p50, p99 = (float(np.percentile(times, part)) for part in (50, 99))
    return {
        "recall_at_10": round(hits / (NEIGHBOURS * len(truth)), 4),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
    }


def run(url: str, vectors: Vectors, queries: int) -> dict[str, Any]:
    """All figures."""
    upgrade(url)
    engine = make_engine(url)
    sessions = session_factory(engine)
    with sessions.begin() as session:
        place, rows, storing = store(session, vectors)
    print(f"{len(vectors):,} vectors stored in {storing:.1f} s", flush=True)
    by_row = {row: image_id for image_id, row in rows.items()}
    chosen = np.random.default_rng(0).choice(len(vectors), queries, replace=False)
    asked = [(by_row[int(row)], vectors[row]) for row in chosen]
    truth, bare = limit(vectors, vectors[chosen])
    dimension = vectors.shape[1]

    def question(image_id: UUID, vector: NDArray[np.floating[Any]], effort: int = 100) -> Question:
        return Question(
            vectors=place, vector=vector, without=image_id, limit=NEIGHBOURS, ef_search=effort
        )

    results: dict[str, Any] = {"vectors": len(vectors), "dimension": dimension}
    results["limit_ms"] = round(statistics.median(bare), 2)
    results["stored_per_second"] = round(len(vectors) / storing)
    with sessions.begin() as session:
        session.execute(text("SELECT count(*) FROM embeddings"))  # the pages are in memory then
        results["exact"] = ask(lambda i, v: search_all(session, question(i, v)), asked, rows, truth)
    began = time.perf_counter()
    build_index(
        engine,
        place.model_id,
        dimension,
        memory_mb=512,
        should_stop=lambda: False,
        on_progress=lambda *_: None,
    )
    results["index_seconds"] = round(time.perf_counter() - began, 1)
    with sessions.begin() as session:
        size = text("SELECT pg_relation_size(to_regclass(:name))")
        results["index_mb"] = round(
            session.scalar(size, {"name": index_name(place.model_id)}) / 2**20
        )
        for effort in EFFORTS:
            results[f"hnsw_{effort}"] = ask(
                lambda i, v, effort=effort: search_index(  # type: ignore[misc]
                    session, question(i, v, effort), dimension
                ),
                asked,
                rows,
                truth,
            )
    engine.dispose()
    return results


def show(results: dict[str, Any]) -> None:
    """The table as Markdown."""
    print("| way | recall@10 | p50 | p99 | p50 / limit |\n|---|---|---|---|---|")
    print(f"| matrix product alone (limit) | 1 | {results['limit_ms']} ms | | 1 |")
    for name in ("exact", *(f"hnsw_{effort}" for effort in EFFORTS)):
        row = results[name]
        ratio = row["p50_ms"] / results["limit_ms"]
        print(
            f"| {name} | {row['recall_at_10']} | {row['p50_ms']} ms | {row['p99_ms']} ms "
            f"| {ratio:.2f} |"
        )


def main() -> None:
    """Store, index, ask; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    print("python -m benchmarks.search " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    vectors = make_vectors(options.count)
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} components computed", flush=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        start_servers(load_settings(data_dir=Path(scratch))) as settings,
    ):
        results = run(settings.sqlalchemy_url, vectors, options.queries)
    show(results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
