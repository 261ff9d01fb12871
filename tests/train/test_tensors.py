"""Files of tensors against what the safetensors package writes and reads."""

import hashlib
import random

import pytest
import torch
from safetensors.torch import load_file, save

from tunesmith.train.tensors import write_tensors

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
TYPES += [torch.int8, torch.uint8, torch.bool]


def some_tensors(seed):
    """Of any type and shape: none at all, scalars, empty and transposed ones, one larger than a piece."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    tensors = {"größe/exp_avg": torch.tensor(3.0)} if seed % 2 else {}
    for number in range(seed % 9):
        shape = [chance.choice([0, 1, 2, 3, 7]) for _ in range(chance.randrange(4))]
        tensor = torch.randint(0, 2**8, shape).to(chance.choice(TYPES))
        tensors[f"layers.{number}"] = tensor.T if tensor.ndim == 2 else tensor
    if seed == 3:
        tensors["large"] = torch.rand(1100, 2100)
    return tensors


@pytest.mark.parametrize("seed", range(30))
def test_the_file_is_that_of_safetensors_to_the_byte(tmp_path, seed):
    tensors, path = some_tensors(seed), tmp_path / "some.safetensors"
    written = write_tensors(path, tensors)
    content = path.read_bytes()
    assert written == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert content == save({name: tensor.contiguous() for name, tensor in tensors.items()})
    found = load_file(path)
    assert found.keys() == tensors.keys()
    assert all(found[name].dtype == tensors[name].dtype and torch.equal(found[name], tensors[name]) for name in found)


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "some.safetensors").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "some.safetensors", {})
    assert (tmp_path / "some.safetensors").read_bytes() == b"mine"
