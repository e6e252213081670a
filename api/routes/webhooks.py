"""Webhooks: be told when jobs end instead of asking."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request

from api.auth import ReadCaller, WriteCaller
from api.dependencies import Cursor, Limit, SessionDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.webhooks import (
    DeliveryOut,
    DeliveryPage,
    NewWebhookOut,
    WebhookIn,
    WebhookOut,
    WebhookPage,
)
from core.db.paging import fetch_page
from core.db.webhooks import Webhook, WebhookDelivery
from core.errors import BodyTooLarge, TooManyWebhooks, WebhookNotFound, WebhookUrlInvalid
from core.webhooks import service

router = APIRouter(tags=["webhooks"], route_class=GuardedRoute)


@router.post(
    "/webhooks",
    status_code=201,
    response_model=NewWebhookOut,
    responses=responses(WebhookUrlInvalid, TooManyWebhooks, BodyTooLarge),
    summary="Have an address told when jobs end; the answer has the secret, once",
)
def create_webhook(
    body: WebhookIn, request: Request, session: SessionDep, caller: WriteCaller
) -> Webhook:
    settings = request.app.state.settings
    return service.create_webhook(
        session, caller, url=body.url, events=body.events, settings=settings
    )


@router.get("/webhooks", responses=responses(), summary="List webhooks, newest first")
def list_webhooks(
    session: SessionDep, caller: ReadCaller, cursor: Cursor = None, limit: Limit = 50
) -> WebhookPage:
    page = fetch_page(session, service.webhooks_of(caller), Webhook, cursor=cursor, limit=limit)
    items = [WebhookOut.model_validate(item) for item in page.items]
    return WebhookPage(items=items, next_cursor=page.next_cursor)


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    responses=responses(WebhookNotFound),
    summary="Tell it nothing more",
)
def delete_webhook(webhook_id: UUID, session: SessionDep, caller: WriteCaller) -> None:
    service.delete_webhook(session, caller, webhook_id)


@router.post(
    "/webhooks/{webhook_id}/ping",
    status_code=202,
    response_model=DeliveryOut,
    responses=responses(WebhookNotFound),
    summary="Send a message that tells of nothing, to see whether it arrives",
)
def ping_webhook(webhook_id: UUID, session: SessionDep, caller: WriteCaller) -> WebhookDelivery:
    return service.ping(session, service.get_webhook(session, caller, webhook_id))


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    responses=responses(WebhookNotFound),
    summary="What it was told, and what it answered; newest first",
)
def list_deliveries(
    webhook_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> DeliveryPage:
    webhook = service.get_webhook(session, caller, webhook_id)
    statement = service.deliveries_of(webhook)
    page = fetch_page(session, statement, WebhookDelivery, cursor=cursor, limit=limit)
    items = [DeliveryOut.model_validate(item) for item in page.items]
    return DeliveryPage(items=items, next_cursor=page.next_cursor)
