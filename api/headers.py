"""Headers that tell browsers what they may do with an answer, and which pages may call."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from core.config import Settings

# Answers are data: a browser that shows one as a page runs and loads nothing.
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# Swagger UI and ReDoc begin in an inline script; everything they load is ours.
PAGES_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PAGES = ("/docs", "/redoc", "/static-offline-docs")
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TLS_ONLY = "max-age=31536000"
SENT = ["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "X-Request-ID"]
SENT += ["X-Timeout-Ms"]
SHOWN = ["ETag", "Idempotent-Replayed", "Location", "Retry-After", "X-Request-ID"]
SHOWN += ["RateLimit", "RateLimit-Policy", "X-Fewlabels-Plan", "X-Fewlabels-Model", "Server-Timing"]
PREFLIGHT_SECONDS = 600


def safe_headers(scope: Scope, *, tls: bool) -> dict[str, str]:
    """The headers of an answer, where its route does not set them itself."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    policy = PAGES_POLICY if path.startswith(PAGES) else DATA_POLICY
    # A browser that has seen it once calls this host by HTTPS only: not ours to say without TLS.
    transport = {"Strict-Transport-Security": TLS_ONLY} if tls else {}
    return {**SAFE, "Content-Security-Policy": policy, **transport}


def allow_origins(app: FastAPI, settings: Settings) -> None:
    """Let pages of the origins that are set call from a browser; by default there is none."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=SENT,
            expose_headers=SHOWN,
            allow_credentials=False,  # the key is a header that the page sets, never a cookie
            max_age=PREFLIGHT_SECONDS,
        )
