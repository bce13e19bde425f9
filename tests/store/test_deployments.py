"""Deployments: made, changed field by field, found by name and tags."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from embedded_orch import errors
from embedded_orch.store.deployments import (
    Deployment,
    DeploymentFields,
    find_deployments,
    get_deployment,
    upsert_deployment,
)
from embedded_orch.store.queues import mark_polled
from tests.builders import NOON, SECOND, Builder


def deploy(
    build: Builder, flow_id: UUID, name: str = "nightly", now: int = NOON, **fields: Any
) -> Deployment:
    id = build.process.new_id()
    return build.database.write(
        lambda tx: upsert_deployment(
            tx, id=id, flow_id=flow_id, name=name, now=now, fields=DeploymentFields(**fields)
        )
    )


EVERY_FIELD: dict[str, Any] = {
    "version": "1.2",
    "description": "over night",
    "tags": ["a", 'b"c', "é"],
    "labels": {"team": "data", "level": 3},
    "parameters": '{"x": [1, 2.5, null]}',
    "parameter_openapi_schema": {"type": "object"},
    "enforce_parameter_schema": False,
    "paused": True,
    "path": "/srv",
    "entrypoint": "flows.py:report",
    "job_variables": {"env": {"A": "1"}},
    "concurrency_limit": 2,
    "concurrency_options": {"collision_strategy": "ENQUEUE"},
}


def test_what_is_stored_comes_back_as_python_values(build: Builder) -> None:
    flow_id = build.flow()
    queue_id = build.pool().default_queue_id

    made = deploy(build, flow_id, work_queue_id=queue_id, **EVERY_FIELD)

    read = build.database.read(lambda tx: get_deployment(tx, flow_id=flow_id, name="nightly"))
    assert read == made
    assert {name: getattr(made, name) for name in EVERY_FIELD} == EVERY_FIELD
    assert made.work_queue_id == queue_id


def test_an_upsert_changes_only_the_fields_that_are_given(build: Builder) -> None:
    flow_id = build.flow()
    first = deploy(build, flow_id, **EVERY_FIELD)

    second = deploy(build, flow_id, now=NOON + SECOND, paused=False, description=None)

    changed = {
        name: getattr(second, name)
        for name in first.__struct_fields__
        if getattr(second, name) != getattr(first, name)
    }
    assert changed == {"paused": False, "description": None, "updated": NOON + SECOND}


def test_a_new_deployment_has_the_defaults(build: Builder) -> None:
    made = deploy(build, build.flow())

    assert (made.tags, made.labels, made.parameters, made.job_variables) == ([], {}, "{}", {})
    assert (made.enforce_parameter_schema, made.paused, made.status) == (True, False, "NOT_READY")
    assert (made.parameter_openapi_schema, made.concurrency_limit) == (None, None)


def test_flows_have_deployments_of_the_same_name(build: Builder) -> None:
    first, second = (deploy(build, build.flow(name)) for name in ("one", "two"))

    assert first.id != second.id


def test_callers_who_make_a_deployment_at_once_with_different_fields_all_have_their_way(
    build: Builder,
) -> None:
    flow_id = build.flow()
    given: list[dict[str, Any]] = [{name: value} for name, value in EVERY_FIELD.items()]

    with ThreadPoolExecutor(4) as threads:
        ids = {
            made.id for made in threads.map(lambda fields: deploy(build, flow_id, **fields), given)
        }

    (id,) = ids
    (found,) = build.database.read(find_deployments)
    assert found.id == id
    assert {name: getattr(found, name) for name in EVERY_FIELD} == EVERY_FIELD


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("a/b", {}, "a/b"),
        ("nightly", {"concurrency_limit": 0}, "limit 0"),
    ],
)
def test_what_cannot_be_is_refused_and_not_written(
    build: Builder, name: str, fields: dict[str, Any], message: str
) -> None:
    flow_id = build.flow()

    with pytest.raises(errors.ConfigurationError, match=message):
        deploy(build, flow_id, name, **fields)

    assert build.database.read(find_deployments) == []


def test_a_poll_of_their_queue_makes_deployments_ready_and_is_no_change_of_theirs(
    build: Builder,
) -> None:
    flow_id = build.flow()
    queue_id = build.pool().default_queue_id
    deploy(build, flow_id, "served", work_queue_id=queue_id)
    deploy(build, flow_id, "elsewhere")

    build.database.write(lambda tx: mark_polled(tx, pool_name="pool", now=NOON + SECOND))

    found = build.database.read(find_deployments)
    assert {each.name: (each.status, each.last_polled, each.updated) for each in found} == {
        "served": ("READY", NOON + SECOND, NOON),
        "elsewhere": ("NOT_READY", None, NOON),
    }


# -- finding ---------------------------------------------------------------------------------------


def names(build: Builder, **filters: Any) -> list[str]:
    found = build.database.read(lambda tx: find_deployments(tx, **filters))
    return [each.name for each in found]


def test_tags_find_the_deployments_that_have_all_or_any_of_them(build: Builder) -> None:
    flow_id = build.flow()
    for name, tags in {
        "none": [],
        "red": ["red"],
        "both": ["red", "blue"],
        "odd": ['"', "%", "red, blue"],
    }.items():
        deploy(build, flow_id, name, tags=tags)

    assert {
        "all red": names(build, all_tags=["red"]),
        "all red blue": names(build, all_tags=["blue", "red"]),
        "all of none": names(build, all_tags=[]),
        "any red blue": names(build, any_tags=["red", "blue"]),
        "any green blue": names(build, any_tags=["green", "blue"]),
        "any of none": names(build, any_tags=[]),
        "any odd": names(build, any_tags=['"', "x"]),
        "literally": names(build, all_tags=["%"]),
        "both filters": names(build, all_tags=["red"], any_tags=["blue", "%"]),
    } == {
        "all red": ["red", "both"],
        "all red blue": ["both"],
        "all of none": ["none", "red", "both", "odd"],
        "any red blue": ["red", "both"],
        "any green blue": ["both"],
        "any of none": [],
        "any odd": ["odd"],
        "literally": ["odd"],
        "both filters": ["both"],
    }


def test_a_part_of_a_name_is_found_in_either_case_and_taken_literally(build: Builder) -> None:
    flow_id = build.flow()
    for name in ("50_off", "500off", "Nightly", "back\\slash"):
        deploy(build, flow_id, name)

    assert {
        text: names(build, name_contains=text) for text in ("NIGHT", "_", "0_O", "\\", "%")
    } == {
        "NIGHT": ["Nightly"],
        "_": ["50_off"],
        "0_O": ["50_off"],
        "\\": ["back\\slash"],
        "%": [],
    }


def test_a_listing_goes_on_page_by_page_within_its_flow(build: Builder) -> None:
    flow_id, other = build.flow("one"), build.flow("two")
    made = [deploy(build, flow_id, name) for name in ("a", "b", "c")]
    deploy(build, other, "d")

    first = names(build, flow_id=flow_id, limit=2)
    second = names(build, flow_id=flow_id, limit=2, after=made[1].id)

    assert (first, second) == (["a", "b"], ["c"])
