"""Three ways to find passages: in a generated world, in a corpus on disk, and by asking a server.

The first two rank by BM25 in this process. The index of a corpus is built once, kept in the user's cache
folder under the hash of the corpus, and memory-mapped, so that many processes share it.
"""

import asyncio
import json
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from agentrl.errors import UsageError

from .corpus import Passage, passage_from, read_passages, sha256_of
from .encyclopedia import passages_of

LAYOUT = 1


class Retriever(Protocol):
    """What finds passages."""

    async def search(self, query: str, top_k: int) -> list[Passage]:
        """Return at most `top_k` passages, best first."""
        ...


def libraries() -> tuple[Any, Any]:
    """Return bm25s and numpy, which only searching needs.

    Raises:
        UsageError: they are not installed.
    """
    try:
        import bm25s
        import numpy
    except ImportError as error:
        raise UsageError(
            f"the env 'deepsearch' needs {error.name}: pip install 'agentrl-platform[deepsearch]'"
        ) from error
    return bm25s, numpy


def _index(passages: Sequence[Passage], origin: str) -> Any:
    """Return the BM25 index of passages; `origin` says what holds them, for an error message."""
    bm25s, _ = libraries()
    texts = [f"{passage.title} {passage.text}" for passage in passages]
    words = bm25s.tokenize(texts, show_progress=False)
    if not words.vocab:
        raise UsageError(f"{origin} holds no words to search, only stop-words; choose another")
    index = bm25s.BM25(backend="numpy")
    index.index(words, show_progress=False)
    return index


def _rank(index: Any, query: str, top_k: int) -> list[int]:
    """Return the numbers of the best passages that share a word with `query`."""
    bm25s, _ = libraries()
    words = bm25s.tokenize([query], return_ids=False, show_progress=False)
    if not any(word in index.vocab_dict for word in words[0]):
        return []
    count = min(top_k, int(index.scores["num_docs"]))
    found, scores = index.retrieve(
        words, k=count, backend_selection="numpy", n_threads=0, show_progress=False
    )
    return [int(number) for number, score in zip(found[0], scores[0], strict=True) if score > 0]


class WorldRetriever:
    """Searches the passages of one generated world."""

    def __init__(self, split: str, seed: str, size: int) -> None:
        """Index the world at once: it is small."""
        self._passages = passages_of(split, seed, size)
        self._bm25 = _index(self._passages, f"the {split} world {seed}")

    async def search(self, query: str, top_k: int) -> list[Passage]:
        """Return the best passages of the world."""
        return [self._passages[number] for number in _rank(self._bm25, query, top_k)]


@lru_cache(maxsize=256)
def world_retriever(split: str, seed: str, size: int) -> WorldRetriever:
    """Return the retriever of a world; all envs of a process share it."""
    return WorldRetriever(split, seed, size)


class CorpusRetriever:
    """Searches a corpus of JSON lines; passages are read from the file when they are found."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        """Map the index in `folder`."""
        bm25s, numpy = libraries()
        self._corpus = corpus
        self._bm25 = bm25s.BM25.load(folder, mmap=True)
        self._bm25.backend = "numpy"
        self._offsets = numpy.load(folder / "offsets.npy", mmap_mode="r")

    async def search(self, query: str, top_k: int) -> list[Passage]:
        """Return the best passages of the corpus.

        Not in a thread: then timing would decide which turns are sampled together, and a resumed run
        would not repeat itself.
        """
        with self._corpus.open("rb") as file:
            return [self._read(file, number) for number in _rank(self._bm25, query, top_k)]

    def _read(self, file: Any, number: int) -> Passage:
        file.seek(int(self._offsets[number]))
        try:
            passage = passage_from(json.loads(file.readline()))
        except ValueError:
            passage = None
        if passage is None:
            raise UsageError(f"{self._corpus} was changed while it was in use; start the run again")
        return passage


def cache_folder() -> Path:
    """Return the user's cache folder for indexes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentrl" / "deepsearch"


def build_index(corpus: Path, folder: Path) -> None:
    """Write the index of `corpus` to `folder`, which appears only when it is complete."""
    _, numpy = libraries()
    lines = list(read_passages(corpus))
    if not lines:
        raise UsageError(f"the corpus {corpus} holds no passage")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    try:
        index = _index([passage for _, passage in lines], f"the corpus {corpus}")
        index.save(draft, show_progress=False)
        numpy.save(draft / "offsets.npy", numpy.array([offset for offset, _ in lines], dtype=numpy.int64))
        draft.rename(folder)
    except OSError:
        # Another process may have finished first; its index is as good.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@lru_cache(maxsize=4)
def _corpus_retriever(corpus: Path, digest: str, cache: Path) -> CorpusRetriever:
    bm25s, _ = libraries()
    folder = cache / f"{digest[:32]}-bm25s-{bm25s.__version__}-{LAYOUT}"
    if not folder.is_dir():
        build_index(corpus, folder)
    return CorpusRetriever(corpus, folder)


def corpus_retriever(corpus: Path, cache: Path | None) -> CorpusRetriever:
    """Return the retriever of a corpus; all envs of a process share it."""
    return _corpus_retriever(corpus, sha256_of(corpus), cache or cache_folder())


class HttpRetriever:
    """Asks a retrieval server, by the convention of Search-R1 (arXiv 2503.09516)."""

    def __init__(self, url: str, timeout: float) -> None:
        """Ask `url`, waiting at most `timeout` seconds."""
        self._url, self._timeout = url, timeout

    async def search(self, query: str, top_k: int) -> list[Passage]:
        """Return the passages the server finds.

        Raises:
            ConnectionError: it cannot be reached, is too slow, or answers nonsense.
        """
        return (await asyncio.to_thread(self._ask, query, top_k))[:top_k]

    def _ask(self, query: str, top_k: int) -> list[Passage]:
        body = json.dumps({"queries": [query], "topk": top_k, "return_scores": True}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return [_document(item) for item in json.load(response)["result"][0]]
        except OSError as error:
            raise ConnectionError(f"the retriever {self._url} does not answer: {error}") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConnectionError(
                f"the retriever {self._url} sent no list of documents: {error!r}"
            ) from error


def _document(item: Any) -> Passage:
    passage = passage_from(item.get("document", item)) if isinstance(item, dict) else None
    if passage is None:
        raise ValueError(f"a document needs 'contents', or 'title' and 'text': {item!r:.80}")
    return passage
