"""Settings of what the service sends to others: webhooks."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class OutboundSettings(BaseSettings):
    """The part of the settings that says where the service may call, and how patiently."""

    webhook_hosts: str = Field(
        default="",
        description="Hosts that webhooks may call although their addresses are private or they "
        "have no HTTPS, separated by commas (hooks.internal,127.0.0.1). All others need HTTPS and "
        "public addresses.",
    )
    webhook_seconds: float = Field(
        default=10.0, gt=0, le=60, description="Longest that a receiver may take to answer."
    )
    webhook_attempts: int = Field(
        default=8,
        gt=0,
        le=20,
        description="How often a delivery is tried: after 10 seconds, a minute, 6 minutes, 36 "
        "minutes, 3.6 hours, then every 12 hours.",
    )
    webhook_days: float = Field(
        default=30.0, gt=0, description="How long ended deliveries can be looked at."
    )
    max_webhooks: int = Field(default=20, gt=0, description="Most webhooks of a project.")

    @property
    def trusted_webhook_hosts(self) -> frozenset[str]:
        """Hosts whose addresses are not looked at, in lower case."""
        return frozenset(
            host.strip().lower() for host in self.webhook_hosts.split(",") if host.strip()
        )
