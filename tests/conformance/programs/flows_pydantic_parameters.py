"""Models of pydantic as parameters and results."""

import datetime as dt

from pydantic import BaseModel, Field, HttpUrl

from embedded_orch import flow, task


class Item(BaseModel):
    name: str
    count: int = Field(default=1, gt=0)


class Order(BaseModel):
    items: list[Item]
    at: dt.datetime
    shop: HttpUrl


@task
def first(order: Order):
    return order.items[0]


@flow
def deliver(order: Order):
    return first(order), order.at.isoformat(), order.shop.host


given = {
    "items": [{"name": "pen", "count": "2"}],
    "at": "2026-01-02T03:04:05+00:00",
    "shop": "https://example.org/pens",
}
expected = (Item(name="pen", count=2), "2026-01-02T03:04:05+00:00", "example.org")
assert deliver(given) == expected
assert deliver(Order(**given)) == expected
assert deliver({**given, "items": [{"name": "pen", "count": 0}]}, return_state=True).is_failed()
