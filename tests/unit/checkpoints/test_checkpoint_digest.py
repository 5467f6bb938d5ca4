"""The digest of weights."""

from hashlib import sha256

from workers.checkpoints.digest import WeightsDigest, weights_digest
from workers.checkpoints.shards import read_shards
from workers.checkpoints.writing import ShardWriter, Spec, write_index

TENSORS = [
    (Spec("b", "F32", (2, 1)), b"12345678"),
    (Spec("a", "BF16", (2,)), b"abcd"),
    (Spec("c", "F16", ()), b"zz"),
]
LINES = (
    f"a BF16 2 {sha256(b'abcd').hexdigest()}\n"
    f"b F32 2,1 {sha256(b'12345678').hexdigest()}\n"
    f"c F16  {sha256(b'zz').hexdigest()}\n"
)


def test_digest_is_as_documented():
    for tensors in (TENSORS, TENSORS[::-1]):
        digest = WeightsDigest()
        for spec, data in tensors:
            digest.begin(*spec)
            digest.update(data[:1])
            digest.update(data[1:])
        assert digest.hexdigest() == sha256(LINES.encode()).hexdigest()


def test_digest_ignores_shards(tmp_path):
    for name, shards in [("one", [TENSORS]), ("three", [[tensor] for tensor in TENSORS])]:
        folder = tmp_path / name
        folder.mkdir()
        files = {f"model-{number}.safetensors": shard for number, shard in enumerate(shards)}
        for file, shard in files.items():
            with ShardWriter(folder / file, [spec for spec, _ in shard]) as writer:
                for _, data in shard:
                    writer.write(data)
        write_index(folder, {file: [spec for spec, _ in shard] for file, shard in files.items()})
        tensors = [tensor for shard in read_shards(folder).values() for tensor in shard]
        assert weights_digest(tensors, lambda done: None) == sha256(LINES.encode()).hexdigest()
