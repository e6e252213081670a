"""How much of the truth the index finds, and how fast: measured on stored vectors."""

from __future__ import annotations

import statistics
import time
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from core.search.nearest import EF_SEARCH, Question, search_all, search_index
from core.search.stored import VectorSet, sample_vectors

QUERIES = 100
NEIGHBOURS = 10
TIE = 1e-6  # distances this close are the same: of two equal images either is right


def measure_recall(
    sessions: sessionmaker[Session], vectors: VectorSet, dimension: int, *, queries: int = QUERIES
) -> dict[str, Any] | None:
    """Recall@10 of the index against all vectors, and milliseconds a query; None without two.

    The questions are vectors of the set, each without itself among the answers.
    """
    hits = total = 0
    exact_ms: list[float] = []
    index_ms: list[float] = []
    with sessions.begin() as session:
        for image_id, vector in sample_vectors(session, vectors, count=queries):
            question = Question(vectors=vectors, vector=vector, without=image_id, limit=NEIGHBOURS)
            started = time.perf_counter()
            truth = search_all(session, question)
            middle = time.perf_counter()
            found = search_index(session, question, dimension)
            index_ms.append((time.perf_counter() - middle) * 1000)
            exact_ms.append((middle - started) * 1000)
            if truth:
                farthest = truth[-1].distance + TIE
                hits += min(len(truth), sum(row.distance <= farthest for row in found))
                total += len(truth)
    if not total:
        return None
    return {
        "recall_at_10": round(hits / total, 4),
        "queries": len(index_ms),
        "ef_search": EF_SEARCH,
        "exact_ms": round(statistics.median(exact_ms), 3),
        "index_ms": round(statistics.median(index_ms), 3),
    }
