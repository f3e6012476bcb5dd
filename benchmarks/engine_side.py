"""What the storm asks under the engine's own interpreter, without anything of ours in between.

python engine_side.py vectors PALACE BACKEND < jobs.json    the backend itself: is each drawer there, and found?
python engine_side.py serve [ARGS]                  mempalace-mcp, on 3.4.0 without upstream bug #1710
python engine_side.py embed FILE < texts            vectors of many texts, for benchmarks
python engine_side.py fill PALACE COUNT FILE < texts    make a palace with many drawers of them
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

NEAREST = 3  # a drawer must be among so many when its own vector is asked for


def vectors(palace: str, backend: str) -> None:
    """Read [[id, [texts it may have]], ...]; print {"missing": [...], "unreachable": [...], "documents": {...}}.

    `unreachable`: the row is in SQLite, but a query with the embedding of its own text does not find it: to a
    user it is lost, though every count says that it is there. `embedded`: how many have a vector in the index.
    """
    os.environ["ANONYMIZED_TELEMETRY"] = "False"
    jobs = json.load(sys.stdin)
    embed = _stock_embedder()
    collection = _drawers(palace, backend)
    found = collection.get(include=["documents"])
    documents = dict(zip(found["ids"], found["documents"] or []))  # noqa: B905 - Python 3.9
    present = [job[0] for job in jobs if job[0] in documents]
    # vectors are made anew from the text, as a search does: what the index returned would prove nothing
    unreachable = []
    for start in range(0, len(present), 16):
        ids = present[start : start + 16]
        asked = embed([documents[name] for name in ids])
        answers = collection.query(query_embeddings=asked, n_results=NEAREST, include=[])["ids"]
        unreachable += [one for one, near in zip(ids, answers) if one not in near]  # noqa: B905
    result = {
        "missing": [job[0] for job in jobs if job[0] not in documents],
        "wrong": [job[0] for job in jobs if job[0] in documents and documents[job[0]] not in job[1]],
        "unreachable": unreachable,
        "documents": documents,
    }
    json.dump(result, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # threads inside Chroma must not hold up the exit


def _drawers(palace: str, backend: str) -> Any:
    """The collection of drawers: with Chroma its own, with another backend as mempalace opens it."""
    name = "mempalace_drawers"
    if backend == "chroma":
        settings = import_module("chromadb.config").Settings(anonymized_telemetry=False)
        client = import_module("chromadb").PersistentClient(palace, settings=settings)
        return client.get_collection(name, embedding_function=None)
    backends = import_module("mempalace.backends")
    reference = backends.PalaceRef(id=palace, local_path=palace)
    return backends.get_backend(backend).get_collection(palace=reference, collection_name=name, create=False)


def without_1710() -> bool:
    """Replace the one function of 3.4.0 that takes a sound index for a broken one after a delete; whether it was there.

    Upstream #1710: 3.4.0 counts additions and labels and renames the index away when they differ, which they do
    after any delete. A stock 3.4.0 that only looks at a palace would destroy what it is to judge.
    """
    chroma = import_module("mempalace.backends.chroma")

    stock = getattr(chroma, "_missing_dimensionality_appears_recoverable", None)
    if stock is None:
        return False

    def recoverable(persisted: Any, id_to_label: Any, seg_dir: str) -> bool:
        fields = persisted if isinstance(persisted, dict) else vars(persisted)
        total, labels = fields.get("total_elements_added"), fields.get("label_to_id")
        if isinstance(total, int) and total > len(id_to_label):
            persisted = {"total_elements_added": len(id_to_label), "label_to_id": labels}
        return bool(stock(persisted, id_to_label, seg_dir))

    vars(chroma)["_missing_dimensionality_appears_recoverable"] = recoverable
    return True


def serve(argv: list[str]) -> None:
    """Be mempalace-mcp."""
    sys.argv = ["mempalace-mcp", *argv]
    os.environ["MEMPALACE_HUB_FORWARD"] = "0"
    server = import_module("mempalace.mcp_server")
    without_1710()
    sys.exit(server.main())


def embed(out: str) -> None:
    """Embed a list of texts into a .npy file."""
    numpy = import_module("numpy")
    texts = json.load(sys.stdin)
    run = _embedder()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows: Any = numpy.zeros((len(texts), 384), dtype=numpy.float32)
    for start in range(0, len(order), 32):
        part = order[start : start + 32]
        rows[part] = run([texts[i] for i in part])
        if start % 1024 == 0:
            print(f"{start} of {len(texts)}", file=sys.stderr, flush=True)
    numpy.save(out + ".part.npy", rows)
    os.replace(out + ".part.npy", out)


def fill(palace: str, count: int, vectors_file: str) -> None:
    """Fill a new palace with `count` drawers: rows as add_drawer makes them, vectors of `embed` or mixed of them."""
    sys.argv = ["mempalace-mcp", "--palace", palace]
    server = import_module("mempalace.mcp_server")
    if hasattr(server, "_apply_server_flags"):
        server._apply_server_flags(palace=palace)
        server._acquire_mcp_writer_lock()
    without_1710()
    texts = json.load(sys.stdin)
    row = _mixer(vectors_file)
    first = {"wing": "w0", "room": "r0", "content": "the first note of this palace"}
    params = {"name": "mempalace_add_drawer", "arguments": first}
    server.handle_request({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    collection = server._get_collection(create=True)
    stored_every = _store_index_every(collection, 50_000)  # 3.4.0 stores it at every second write
    for start in range(0, count, 500):
        part = range(start, min(count, start + 500))
        collection.upsert(
            ids=[f"drawer_w{i % 7}_r{i % 13}_{i:024d}" for i in part],
            documents=[texts[i] for i in part],
            embeddings=[row(i) for i in part],
            metadatas=[_metadata(i) for i in part],
        )
        if start % 10_000 == 0:
            print(f"{start} of {count}", file=sys.stderr, flush=True)
    _store_index_every(collection, stored_every)
    os._exit(0 if collection.count() > count else 1)


def _mixer(vectors_file: str) -> Any:
    """A function from the number of a note to its vector: its own where it was embedded, else a mixture of two."""
    numpy = import_module("numpy")
    rows = numpy.load(vectors_file)

    def row(i: int) -> list[float]:
        if i < len(rows):
            return list(rows[i].tolist())
        rng = numpy.random.default_rng(i)
        one, other = rng.integers(0, len(rows), 2)
        mixed = rows[one] + rng.uniform(0.3, 1.0) * rows[other]
        return list((mixed / numpy.linalg.norm(mixed)).astype(numpy.float32).tolist())

    return row


def _store_index_every(collection: Any, writes: int) -> int:
    """Let Chroma store the index after so many writes; return after how many it did before."""
    stock = getattr(collection, "_collection", collection)
    before = int(stock.configuration["hnsw"]["sync_threshold"])
    settings = import_module("chromadb.api.collection_configuration")
    hnsw = settings.UpdateHNSWConfiguration(sync_threshold=writes)
    stock.modify(configuration=settings.UpdateCollectionConfiguration(hnsw=hnsw))
    return before


def _metadata(i: int) -> dict[str, Any]:
    return {
        "wing": f"w{i % 7}",
        "room": f"r{i % 13}",
        "source_file": "",
        "added_by": "mcp",
        "filed_at": "2026-01-01T00:00:00",
        "chunk_index": 0,
    }


def _stock_embedder() -> Any:
    made = import_module("chromadb.utils.embedding_functions").ONNXMiniLM_L6_V2
    return made(preferred_providers=["CPUExecutionProvider"])


def _embedder() -> Any:
    """Embed texts padded to the longest of their batch: the same vectors, several times as fast."""
    numpy = import_module("numpy")
    stock = _stock_embedder()
    stock(["load the model"])
    tokenizer, session = stock.tokenizer, stock.model
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")

    def embed(texts: list[str]) -> list[list[float]]:
        encoded = tokenizer.encode_batch(texts)
        ids = numpy.array([one.ids for one in encoded], dtype=numpy.int64)
        mask = numpy.array([one.attention_mask for one in encoded], dtype=numpy.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        hidden = session.run(None, feed)[0]
        weights = mask[..., None]
        mean = (hidden * weights).sum(1) / numpy.clip(weights.sum(1), 1e-9, None)
        mean /= numpy.clip(numpy.linalg.norm(mean, axis=1, keepdims=True), 1e-12, None)
        rows: list[list[float]] = mean.astype(numpy.float32).tolist()
        return rows

    return embed


def main() -> None:
    command, rest = sys.argv[1], sys.argv[2:]
    if command == "vectors":
        vectors(*rest)
    elif command == "fill":
        fill(rest[0], int(rest[1]), rest[2])
    elif command == "embed":
        embed(rest[0])
    else:
        serve(rest)


if __name__ == "__main__":
    main()
