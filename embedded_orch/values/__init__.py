"""How values become bytes and come back equal, and how the inputs of a call get a stable hash."""

from __future__ import annotations

from embedded_orch.values.classes import qualified_name
from embedded_orch.values.codec import (
    decode,
    decode_parsed,
    decode_plain,
    encode,
    encode_parameters,
)
from embedded_orch.values.hashing import InputsHash, examine_inputs, hash_inputs, source_hash
from embedded_orch.values.places import is_outside
from embedded_orch.values.preview import preview
from embedded_orch.values.secret import Secret
from embedded_orch.values.stored import load_stored

__all__ = [
    "InputsHash",
    "Secret",
    "decode",
    "decode_parsed",
    "decode_plain",
    "encode",
    "encode_parameters",
    "examine_inputs",
    "hash_inputs",
    "is_outside",
    "load_stored",
    "preview",
    "qualified_name",
    "source_hash",
]
