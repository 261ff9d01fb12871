"""Near-duplicate pairs by datasketch: JSON Lines of word lists in, seconds and candidate pairs out.

MinHash.bulk with 128 permutations in its fastest scheme, n-grams hashed by xxHash in place of the slower SHA-1 of its
defaults, and MinHashLSH for the same threshold. Candidates are not verified, which is in datasketch's favour.

    python benchmarks/peers/datasketch_dedup.py documents.jsonl pairs.json THRESHOLD N
"""

import json
import sys
import time
from pathlib import Path

import xxhash
from datasketch import MinHash, MinHashLSH


def main() -> None:
    source, out, threshold, size = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    texts = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    started, started_cpu = time.perf_counter(), time.process_time()
    hashes = MinHash.generator(
        (ngrams(text, size) for text in texts), num_perm=128, scheme="affine32", hashfunc=xxhash.xxh32_intdigest
    )
    index = MinHashLSH(threshold=threshold, num_perm=128)
    pairs = []
    with index.insertion_session() as session:
        for number, found in enumerate(hashes):
            pairs += [(other, number) for other in index.query(found)]
            session.insert(number, found, check_duplication=False)
    print(time.perf_counter() - started, time.process_time() - started_cpu)
    out.write_text(json.dumps(pairs))


def ngrams(text: str, size: int) -> list[bytes]:
    words = text.lower().split()
    return [" ".join(words[k : k + size]).encode() for k in range(max(1, len(words) - size + 1))]


if __name__ == "__main__":
    main()
