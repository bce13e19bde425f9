"""A secret is handed out by `get()`, and by nothing else."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import traceback

import pytest

from embedded_orch.errors import ValueNotStorable
from embedded_orch.values import Secret, encode, encode_parameters, examine_inputs, hash_inputs
from embedded_orch.values.secret import SecretsInUse
from embedded_orch.values.secret import in_use as known

PASSWORD = "correct horse"


def test_get_hands_out_the_value() -> None:
    assert Secret(PASSWORD).get() == PASSWORD
    assert Secret([1]).get() == [1]


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        "{}".format,
        "{!r:>30}".format,
        "{:>30}".format,
        lambda secret: f"{secret}",
        lambda secret: f"{[secret]} { ({'key': secret}) }",
        lambda secret: "%s" % secret,  # noqa: UP031
        lambda secret: logging.LogRecord("x", 1, "p", 1, "key %s", (secret,), None).getMessage(),
        lambda secret: "".join(traceback.format_exception(ValueError(secret))),
        lambda secret: repr(getattr(secret, "__dict__", None)),
    ],
)
def test_no_text_shows_the_value(show: object) -> None:
    assert callable(show)

    assert PASSWORD not in show(Secret(PASSWORD))


def test_formatting_shows_the_mask_in_the_width_asked_for() -> None:
    assert f"{Secret(1):>12}" == "  **********"
    assert repr(Secret(1)) == "Secret('**********')"


def test_secrets_are_equal_when_their_values_are() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_secret_cannot_be_changed() -> None:
    secret = Secret("a")

    with pytest.raises(AttributeError, match="make a new one"):
        secret._value = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="make a new one"):
        del secret._value
    assert secret.get() == "a"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled: read it where it is used"):
        pickle.dumps({"key": Secret(PASSWORD)}, protocol)


def test_a_copy_is_the_secret_itself() -> None:
    secret = Secret(PASSWORD)

    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret]) == [secret]


def test_a_secret_is_not_stored() -> None:
    with pytest.raises(ValueNotStorable, match=r"result\['key'\] is of type .*:Secret") as caught:
        encode({"key": Secret(PASSWORD)})

    assert PASSWORD not in str(caught.value)
    assert encode_parameters({"key": Secret(PASSWORD), "n": 1}) == (
        '{"n":1}',
        {"key": "embedded_orch.values.secret:Secret"},
    )


def test_inputs_with_another_secret_have_the_same_hash() -> None:
    one = {"key": Secret("a"), "rows": [1, Secret("b")]}
    other = {"key": Secret("c"), "rows": [1, Secret("d")]}

    assert hash_inputs(one) == hash_inputs(other)
    assert hash_inputs(one) != hash_inputs({"key": "a", "rows": [1, "b"]})
    assert examine_inputs(one).by_type.keys() == {"key", "rows"}


# -- in what is logged -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text", "masked"),
    [
        (PASSWORD, f"it is {PASSWORD}, {PASSWORD}", "it is **********, **********"),
        ("pass/word", "postgresql://me:pass%2Fword@host", "postgresql://me:**********@host"),
        ("it's\n", repr("say it's\n now"), '"say ********** now"'),
        (b"token", "a token", "a **********"),
        (12345678, "call 12345678", "call **********"),
        ({"user": "me", "keys": ["first key", ("second key",)]}, "first key", "**********"),
        ("abc", "abc is too short to be looked for", "abc is too short to be looked for"),
        (None, "None", "None"),
    ],
)
def test_values_in_use_are_masked_in_texts(value: object, text: str, masked: str) -> None:
    in_use = SecretsInUse()
    secret = Secret(value)
    in_use.add(secret)

    assert in_use.masked(text) == masked


def test_the_longest_value_is_masked_first() -> None:
    in_use = SecretsInUse()
    secrets = [Secret("long"), Secret("longer than long"), Secret("longer")]
    for secret in secrets:
        in_use.add(secret)

    assert in_use.masked("longer than long, longer, long") == "**********, **********, **********"


def test_a_secret_that_is_gone_is_looked_for_no_longer() -> None:
    in_use = SecretsInUse()
    secret = Secret(PASSWORD)
    in_use.add(secret)
    assert in_use.masked(PASSWORD) != PASSWORD
    del secret
    gc.collect()

    assert in_use.masked(PASSWORD) == PASSWORD


def test_making_a_secret_makes_it_known() -> None:
    secret = Secret("known from now on")

    assert known.masked("known from now on") == str(secret)
