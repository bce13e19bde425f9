"""Serializers by themselves: each way back, what is stored of them, and what a text may load."""

from __future__ import annotations

import sys
from typing import Any, Literal

import pytest
from hypothesis import given, settings

from embedded_orch import errors
from embedded_orch.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
)
from embedded_orch.values.serializers import dump, load, resolve_serializer, serializer_of
from embedded_orch.values.stored import load_stored
from tests.values.samples import is_same, values


class Reversed(Serializer):
    """A user's own, with a setting."""

    type: Literal["reversed"] = "reversed"  # type: ignore[assignment]
    times: int = 1

    def dumps(self, obj: Any) -> bytes:
        return repr(obj).encode()[:: (-1) ** self.times]

    def loads(self, blob: bytes) -> Any:
        return int(blob[:: (-1) ** self.times])


EACH = [
    JSONSerializer(),
    PickleSerializer(),
    PickleSerializer(picklelib="pickle"),
    CompressedJSONSerializer(),
    CompressedPickleSerializer(compressionlib="zlib"),
    CompressedSerializer(serializer="json", compressionlib="bz2"),
    CompressedSerializer(serializer=CompressedSerializer(serializer="pickle")),
]


def after_a_way_through_storage(serializer: Serializer, value: object) -> object:
    return load_stored(dump(serializer, value), serializer.stored_name)


class TestValues:
    @pytest.mark.parametrize("serializer", EACH, ids=lambda each: each.stored_name)
    def test_a_value_comes_back_equal_and_of_its_type(self, serializer: Serializer) -> None:
        value = {"a": (1, b"2"), 3: {4.5}, "nan": float("nan")}

        assert is_same(after_a_way_through_storage(serializer, value), value)

    @given(values)
    @settings(max_examples=25, deadline=None)
    def test_compressed_tagged_json_keeps_whatever_tagged_json_keeps(self, value: object) -> None:
        serializer = CompressedJSONSerializer(compressionlib="zlib")
        try:
            found = after_a_way_through_storage(serializer, value)
        except errors.ValueNotStorable:
            with pytest.raises(errors.ValueNotStorable):
                dump(JSONSerializer(), value)
        else:
            assert is_same(found, value)

    def test_what_it_cannot_store_is_an_error_of_ours_that_names_the_type(self) -> None:
        with pytest.raises(errors.ValueNotStorable, match=r"generator.*'pickle'"):
            dump(PickleSerializer(picklelib="pickle"), (n for n in ()))

    def test_what_it_cannot_read_is_a_missing_result(self) -> None:
        with pytest.raises(errors.MissingResult, match="'compressed/json'"):
            load(CompressedJSONSerializer(), b"not compressed")

    def test_a_json_library_of_your_own_makes_of_it_what_it_does(self) -> None:
        serializer = JSONSerializer(jsonlib="json", dumps_kwargs={"indent": 1})

        assert serializer.dumps([1]) == b"[\n 1\n]"
        assert after_a_way_through_storage(serializer, (1,)) == [1]


class TestNames:
    def test_a_class_of_the_user_is_found_by_its_type_with_its_settings(self) -> None:
        serializer = Reversed(times=2)

        assert serializer.stored_name == '{"times":2,"type":"reversed"}'
        assert serializer_of(serializer.stored_name) == serializer
        assert after_a_way_through_storage(Reversed(), 12) == 12

    @pytest.mark.parametrize("serializer", EACH, ids=lambda each: each.stored_name)
    def test_what_is_stored_of_each_makes_it_again(self, serializer: Serializer) -> None:
        assert serializer_of(serializer.stored_name) == serializer

    def test_one_is_made_by_its_type_as_in_prefect(self) -> None:
        assert Serializer(type="compressed/pickle") == CompressedPickleSerializer()
        assert resolve_serializer("json") == JSONSerializer()

    def test_a_type_that_there_is_not_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(errors.ConfigurationError, match=r"'toml'.*'json', 'pickle'"):
            resolve_serializer("toml")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: JSONSerializer(indent=1), "no 'indent'"),
            (lambda: JSONSerializer(dumps_kwargs={"default": str}), "object_encoder"),
            (lambda: PickleSerializer(picklelib="os"), "no dumps"),
            (lambda: PickleSerializer(picklelib="missing_module"), "not installed"),
            (lambda: CompressedSerializer(serializer="json", compressionlib="os"), "no compress"),
            (lambda: CompressedSerializer(), "of which one"),
            (lambda: Serializer(), "needs a type"),
        ],
    )
    def test_wrong_settings_are_refused(self, make: Any, message: str) -> None:
        with pytest.raises(errors.ConfigurationError, match=message):
            make()


class TestHostileNames:
    def test_a_stored_name_imports_nothing(self) -> None:
        sys.modules.pop("antigravity", None)
        for name in (
            '{"type":"pickle","picklelib":"antigravity"}',
            '{"type":"compressed","serializer":"json","compressionlib":"antigravity"}',
            '{"type":"json","object_decoder":"antigravity.fly"}',
            '{"type":"compressed","serializer":{"type":"pickle","picklelib":"antigravity"}}',
        ):
            with pytest.raises(errors.MissingResult, match="not imported"):
                serializer_of(name)
        assert "antigravity" not in sys.modules

    @pytest.mark.parametrize("name", ["{", '{"no":"type"}', "[]", '{"type":["json"]}', "missing"])
    def test_a_name_that_says_nothing_is_a_missing_result(self, name: str) -> None:
        with pytest.raises(errors.MissingResult):
            serializer_of(name)

    @pytest.mark.parametrize(
        "serializer",
        [PickleSerializer(), CompressedSerializer(serializer=CompressedPickleSerializer())],
        ids=lambda each: each.type,
    )
    def test_what_runs_code_is_not_read_where_that_is_not_wanted(
        self, serializer: Serializer
    ) -> None:
        with pytest.raises(errors.MissingResult, match="may run anything"):
            load_stored(dump(serializer, 1), serializer.stored_name, runs_code=False)
