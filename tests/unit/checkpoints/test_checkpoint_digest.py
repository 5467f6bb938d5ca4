"""The digest of weights."""

from hashlib import sha256

import pytest

from triptych.workers.checkpoints.shards import Spec, read_tensors, write_index, write_shard
from triptych.workers.checkpoints.space import weights_digest

TENSORS = [
    (Spec("b", "F32", (2, 1)), b"12345678"),
    (Spec("a", "BF16", (2,)), b"abcd"),
    (Spec("c", "F16", ()), b"zz"),
]
DIGEST = sha256(
    f"a BF16 2 {sha256(b'abcd').hexdigest()}\n"
    f"b F32 2,1 {sha256(b'12345678').hexdigest()}\n"
    f"c F16  {sha256(b'zz').hexdigest()}\n".encode()
).hexdigest()


@pytest.mark.parametrize("shards", [[TENSORS], [[tensor] for tensor in TENSORS[::-1]]])
def test_digest_is_as_documented(tmp_path, shards):
    files = {f"model-{number}.safetensors": shard for number, shard in enumerate(shards)}
    for file, shard in files.items():
        write_shard(tmp_path / file, [spec for spec, _ in shard], [data for _, data in shard])
    write_index(tmp_path, {file: [spec for spec, _ in shard] for file, shard in files.items()})
    assert weights_digest(read_tensors(tmp_path)) == DIGEST
