"""Which user the embedded Postgres runs as: this one, or `nobody` because it refuses root."""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import EmbeddedServerFailed

# Let `nobody` pass folders that only root may enter (/root, a fresh temporary folder) without
# changing anybody's permissions. Numbers: linux/capability.h.
CAPABILITIES = {"dac_override": 1, "dac_read_search": 2}
SETPCAP = 8
REMEDY = "run as an ordinary user, or set FEWLABELS_DATABASE_URL to a Postgres of yours"


@dataclass(frozen=True, slots=True)
class Account:
    """A user id, and the words to put before a command so that it runs under it."""

    uid: int
    gid: int
    prefix: list[str] = field(default_factory=list)

    def own(self, path: Path) -> None:
        """Give a path that we made to this account."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.gid)

    def failure(self, reason: str) -> str:
        """One sentence for the user about a first start that failed."""
        if self.prefix:
            return (
                "Postgres refuses to run as root and could not be run as user 'nobody' "
                f"({reason}); {REMEDY}"
            )
        return f"Postgres could not make its data folder: {reason}"


def server_account() -> Account:
    """The account for the server.

    Raises:
        EmbeddedServerFailed: We are root and there is no way to be somebody else.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedServerFailed(
            f"Postgres refuses to run as root and the program setpriv is not there; {REMEDY}"
        )
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerFailed(
            f"Postgres refuses to run as root and there is no user 'nobody'; {REMEDY}"
        ) from None
    user = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    prefix = [setpriv, *user, *_capability_options(), "--no-new-privs", "--"]
    return Account(nobody.pw_uid, nobody.pw_gid, prefix)


def _capability_options() -> list[str]:
    """Pass on those of the capabilities that this process has; a container may lack them."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = int(lines["CapEff"], 16) & int(lines["CapBnd"], 16)
    kept = ",".join(f"+{name}" for name, bit in CAPABILITIES.items() if held >> bit & 1)
    if not kept:
        return []
    # access(2), by which Postgres looks for its programs, forgets capabilities without this.
    fixed = ["--securebits=+no_setuid_fixup"] if held >> SETPCAP & 1 else []
    return [f"--inh-caps={kept}", f"--ambient-caps={kept}", *fixed]
