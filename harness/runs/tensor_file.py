"""Writes and reads safetensors files one tensor at a time: a model may be larger than one process's memory.

Equal tensors give the same bytes as safetensors' own writer, whether the tensors are whole or sharded over ranks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from harness.learning.sharded import whole

DTYPES = {  # names in the format, in the format's order: wide types first, so that every tensor is aligned
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write and fsync a file. Returns its hash. Other ranks that hold shards of the tensors must call `send` at the same time."""
    digest = hashlib.blake2b()
    with open(path, "wb") as file:
        for piece in pieces(tensors):
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()[:32]


def send(tensors: Mapping[str, Tensor]) -> None:
    """Take part in gathering the tensors that the first rank writes; for the other ranks."""
    for name in in_order(tensors):
        whole(tensors[name])


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Bytes of the file in order: the header's length, the header, and each tensor."""
    names, header, end = in_order(tensors), {}, 0
    for name in names:
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        facts = {"dtype": DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [start, end]}
        header[name] = facts
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in names:
        yield memoryview(whole(tensors[name].detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    places = {dtype: place for place, dtype in enumerate(DTYPES)}
    return sorted(tensors, key=lambda name: (places[tensors[name].dtype], name))


class TensorFile(Mapping[str, Tensor]):
    """A safetensors file as a mapping from names to tensors; a tensor is read when it is looked up."""

    def __init__(self, path: Path):
        self.file = safe_open(path, "pt")
        self.names = list(self.file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        return self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
