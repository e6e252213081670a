"""The command line: `fewlabels up`, `fewlabels demo`, `fewlabels migrate`, …"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from core import blobs
from core.auth import DEFAULT_PROJECT, create_key, list_keys, revoke_key
from core.config import Settings, load_settings
from core.db.migrating import upgrade
from core.db.session import make_engine, session_factory
from core.demo.command import demo
from core.doctor.command import doctor
from core.embedded.commands import become
from core.embedded.servers import with_running_database
from core.embedded.service import run_service
from core.errors import FewlabelsError
from core.monitor.command import jobs
from core.restored import missing
from core.samples import write_samples
from core.storage.store import BlobStore, open_store
from core.upload.command import upload

app = typer.Typer(
    name="fewlabels",
    help="From unlabelled images and a handful of labels to a model that an application can call.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(jobs, name="jobs")
app.command()(demo)
app.command()(doctor)
app.command()(upload)
# Soft wrap: a URL, a path or a command that is copied from the screen must stay in one piece.
out = Console(soft_wrap=True, highlight=False)
err = Console(soft_wrap=True, highlight=False, stderr=True)

Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that serve HTTP.", min=1, show_default=False),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder for servers, images and models.", show_default=False),
]


@app.command()
def up(
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default=False)
    ] = None,
    workers: Workers = None,
) -> None:
    """Run the service; servers that no URL is set for are started along with it."""
    with sentences():
        settings = load_settings(data_dir=data_dir, host=host, port=port, api_processes=workers)
        say(f"data folder {settings.data_dir}")
        run_service(settings, tell=say, ready=_greeting(settings))


@app.command()
def migrate() -> None:
    """Bring the database at FEWLABELS_DATABASE_URL up to date."""
    with sentences():
        upgrade(load_settings().sqlalchemy_url)
        say("the database is up to date")


@app.command()
def api(workers: Workers = None) -> None:
    """Run the API alone, on the servers that are set by URL."""
    with sentences():
        become("api", load_settings(api_processes=workers))


@app.command()
def worker() -> None:
    """Run a job worker alone, on the servers that are set by URL; as many as there are machines."""
    with sentences():
        become("worker", load_settings())


@app.command()
def beat() -> None:
    """Run the sweep for lost and expired jobs, on the servers that are set by URL; one will do."""
    with sentences():
        become("beat", load_settings())


@app.command()
def samples(
    folder: Annotated[Path, typer.Argument(help="Where to; made when it is not there.")],
) -> None:
    """Write images to try the service with: digits.zip, labels.csv, heldout/."""
    with sentences():
        written = write_samples(folder)
        for path in (written.archive, written.labels, written.held_out):
            say(f"wrote {path}")


@keys.command("create")
def create_api_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    project: Annotated[str, typer.Option(help="Made when there is none.")] = DEFAULT_PROJECT,
    scopes: Annotated[str, typer.Option(help="Of read, write, infer, admin.")] = "read,write,infer",
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make an API key; it is shown this once and never again."""
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with sentences(), database_session(data_dir) as session:
        wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        key, secret = create_key(
            session, project=project, name=name, scopes=wanted, expires_at=expires
        )
        say(f"id {key.id}, project {project}, scopes {', '.join(key.scopes)}")
        print(secret)


@keys.command("list")
def list_api_keys(data_dir: DataDir = None) -> None:
    """List the API keys, without the keys themselves."""
    with sentences(), database_session(data_dir) as session:
        for key, project in list_keys(session):
            used = f"used {key.last_used_at or 'never'}"
            ended = "revoked" if key.revoked_at else f"expires {key.expires_at or 'never'}"
            print(f"{key.id}  {project}  {key.name}  {','.join(key.scopes)}  {used}  {ended}")


@keys.command("revoke")
def revoke_api_key(key_id: UUID, data_dir: DataDir = None) -> None:
    """End an API key at once."""
    with sentences(), database_session(data_dir) as session:
        revoke_key(session, key_id)
        say(f"revoked {key_id}")


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is there.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Find stored bytes that nothing in the database refers to; the sweep deletes them."""
    with sentences(), storage(data_dir) as (sessions, store):
        found = list(blobs.orphans(sessions, store))
        for key in found:
            print(key)
        say(f"{len(found):,} blobs without a row")
        if not dry_run:
            marked = blobs.mark_orphans(sessions, found)
            hours = load_settings().blob_grace_seconds / 3600
            say(f"{marked:,} of them newly marked; the sweep deletes them in {hours:g} h")


@app.command()
def verify(data_dir: DataDir = None) -> None:
    """Find what the database refers to and the blob store does not have: after a restore."""
    with sentences(), storage(data_dir) as (sessions, store):
        found = 0
        for key in missing(sessions, store):
            print(key)
            found += 1
        say(f"{found:,} blobs are missing")
        if found:
            raise typer.Exit(1)


@app.command("database-url")
def print_database_url(data_dir: DataDir = None) -> None:
    """Print the database's URL for pg_dump and psql; it may hold a password."""
    with sentences():
        url = with_running_database(load_settings(data_dir=data_dir)).sqlalchemy_url
        print(url.replace("postgresql+psycopg://", "postgresql://", 1))


@app.command()
def version() -> None:
    """Print the version."""
    print(installed_version("fewlabels"))


@contextmanager
def storage(data_dir: Path | None) -> Iterator[tuple[sessionmaker[Session], BlobStore]]:
    """The configured database, or the embedded one of a running service, and the blob store."""
    settings = with_running_database(load_settings(data_dir=data_dir))
    engine = make_engine(settings.sqlalchemy_url, pool_size=1)
    try:
        yield session_factory(engine), open_store(settings.store_url)
    finally:
        engine.dispose()


@contextmanager
def database_session(data_dir: Path | None) -> Iterator[Session]:
    """A transaction on that database."""
    with storage(data_dir) as (sessions, _), sessions.begin() as session:
        yield session


@contextmanager
def sentences() -> Iterator[None]:
    """End the command with one sentence and exit code 1 where an error of ours comes out."""
    try:
        yield
    except FewlabelsError as error:
        reason = str(error)
    except OperationalError as error:
        reason = f"the database does not answer: {str(error.orig).splitlines()[0]}"
    else:
        return
    err.print(f"fewlabels: {reason}", style="red", markup=False)
    raise typer.Exit(1)


def say(line: str) -> None:
    """Print one line of progress."""
    out.print(f"  {line}", style="dim", markup=False)


def _greeting(settings: Settings) -> Callable[[str], None]:
    def greet(url: str) -> None:
        json = "-H 'content-type: application/json'"
        key, first = "", []
        if settings.auth_mode == "keys":
            key = ' -H "authorization: Bearer $KEY"'
            make = f"fewlabels keys create --name me --data-dir {settings.data_dir}"
            first = [f"  KEY=$({make} | tail -1)"]
        lines = [
            f"\nFewlabels is up at {url}",
            f"  Swagger UI  {url}/docs",
            f"  logs        {settings.data_dir / 'logs'}",
            "\nTry it:",
            *first,
            f"  curl {url}/healthz",
            f'  curl {url}/datasets{key} {json} -d \'{{"name": "mine"}}\'',
            f"  curl {url}/datasets{key}",
            "\nCtrl-C stops it; everything is there at the next start.",
        ]
        for line in lines:
            out.print(line, markup=False)

    return greet


if __name__ == "__main__":
    app()
