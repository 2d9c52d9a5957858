"""The env deepsearch on files and on a retrieval server: formats, errors, index cache."""

import asyncio
import json
import os
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from agentrl.errors import UsageError
from agentrl.testing import check_env
from agentrl.types import Action, Outcome, Task
from agentrl_deepsearch import DeepSearch
from agentrl_deepsearch.corpus import Passage, passage_from
from agentrl_deepsearch.retrieval import CorpusRetriever, HttpRetriever, build_index, corpus_retriever

PASSAGES = [
    {
        "id": "p1",
        "title": "Ångström",
        "text": "Anders Ångström was born in Lögdö, a village.",
        "url": "ignored",
    },
    {"id": "p2", "title": "Lögdö", "text": "Lögdö lies in Medelpad."},
    {"id": 3, "contents": '"Medelpad"\nMedelpad is a province of Sweden.'},
]
QUESTION = {
    "id": "q1",
    "question": "In which province was Ångström born?",
    "golden_answers": ["Medelpad", "the province of Medelpad"],
    "metadata": {
        "hops": 2,
        "decomposition": [
            {"question": "Where was Ångström born?", "answer": "Lögdö"},
            {"question": "In which province lies #1", "answer": "medelpad"},
        ],
    },
}
OTHER = {"id": "q2", "question": "Where is Medelpad?", "golden_answers": ["Sweden"]}


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {
        "corpus": write(tmp_path / "corpus.jsonl", *PASSAGES[:2], "", PASSAGES[2]),
        "train": write(tmp_path / "train.jsonl", QUESTION),
        "dev": write(tmp_path / "dev.jsonl", OTHER),
        "cache": tmp_path / "cache",
    }


def env(options: dict[str, Any], **more: Any) -> DeepSearch:
    return DeepSearch(DeepSearch.Config(**{**options, **more}))


def play(world: DeepSearch, task: Task, *actions: str) -> tuple[list[str], Outcome]:
    async def episode() -> tuple[list[str], Outcome]:
        seen = [(await world.reset(task, 0)).text]
        for text in actions:
            seen.append((await world.step(Action(text))).text)
        return seen, await world.judge()

    return asyncio.run(episode())


def test_an_env_of_files_keeps_the_rules_of_envs(options: dict[str, Any]) -> None:
    check_env(lambda: env(options))


def test_passages_are_found_and_shown_whatever_their_layout(options: dict[str, Any]) -> None:
    world = env(options)
    seen, outcome = play(
        world, world.tasks("train")[0], "<search> lögdö medelpad</search>", "<search> Sweden</search>"
    )
    assert seen[1].startswith("<information>Doc 1(Title: Lögdö) Lögdö lies in Medelpad.\nDoc 2(Title: ")
    assert seen[2] == "<information>Doc 1(Title: Medelpad) Medelpad is a province of Sweden.</information>"
    assert outcome.metrics["retrieved_gold"] == 1


def test_the_decomposition_of_a_question_becomes_a_demonstration(options: dict[str, Any]) -> None:
    world = env(options)
    task = world.tasks("train")[0]
    assert world.demonstrate(task) == [
        "<search> Where was Ångström born?</search>",
        "<think> Where was Ångström born? Lögdö</think><search> In which province lies Lögdö</search>",
        "<think> In which province lies Lögdö medelpad</think><answer> medelpad</answer>",
    ]
    assert play(world, task, *(world.demonstrate(task) or ()))[1].success
    assert world.demonstrate(world.tasks("dev")[0]) is None


def test_the_index_is_built_once_and_memory_mapped(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = env(options)
    world.tasks("train")
    (folder,) = options["cache"].iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    found = asyncio.run(CorpusRetriever(options["corpus"], folder).search("Sweden", 5))
    assert [passage.title for passage in found] == ["Medelpad"]
    assert corpus_retriever(options["corpus"], options["cache"]) is corpus_retriever(
        options["corpus"], options["cache"]
    )
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_changed_corpus_gets_a_new_index_and_fingerprint(options: dict[str, Any]) -> None:
    world = env(options)
    world.tasks("train")
    before = world.fingerprint()
    write(options["corpus"], {"id": "x", "title": "New", "text": "Sweden again."})
    task = world.tasks("train")[0]
    assert "Doc 1(Title: New)" in play(world, task, "<search> Sweden</search>")[0][1]
    after = world.fingerprint()
    assert {name for name in before if before[name] != after[name]} == {"corpus"}
    assert set(before) == {"corpus", "train", "dev"}
    assert len(list(options["cache"].iterdir())) == 2


def test_a_corpus_of_stop_words_is_refused(options: dict[str, Any]) -> None:
    write(options["corpus"], {"id": "x", "title": "The", "text": "of the and"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match=r"corpus.jsonl holds no words to search"):
            build_index(options["corpus"], options["cache"] / "index")
    assert list(options["cache"].iterdir()) == []


def test_a_corpus_is_searched_without_waiting(options: dict[str, Any]) -> None:
    search = corpus_retriever(options["corpus"], options["cache"]).search("Sweden", 5)
    with pytest.raises(StopIteration) as done:
        search.send(None)
    assert [passage.title for passage in done.value.value] == ["Medelpad"]


def test_two_builders_of_one_index_do_not_disturb_each_other(options: dict[str, Any]) -> None:
    folder = options["cache"] / "index"
    build_index(options["corpus"], folder)
    build_index(options["corpus"], folder)
    assert [path.name for path in options["cache"].iterdir()] == ["index"]


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("train", "{not json", "line 2: not valid JSON"),
        ("train", "[1]", "line 2: expected a JSON object"),
        ("train", {"id": "x", "golden_answers": ["a"]}, 'line 2: a question needs a text "question"'),
        ("train", {"question": "x", "golden_answers": []}, 'line 2: "golden_answers" must be a list'),
        ("train", {"question": "x", "golden_answers": "a"}, 'line 2: "golden_answers" must be a list'),
        ("train", {**OTHER, "metadata": {"decomposition": ["x"]}}, 'line 2: "metadata" must be an object'),
        ("train", QUESTION, "line 2: the id 'q1' was used before"),
        ("corpus", {"id": "x", "title": 3, "text": "a"}, 'line 5: a passage needs "title" and "text"'),
    ],
)
def test_a_malformed_line_is_named(options: dict[str, Any], name: str, line: Any, complaint: str) -> None:
    with options[name].open("a", encoding="utf-8") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(UsageError) as error:
        env(options).tasks("train")
    assert str(error.value).startswith(f"{options[name]}, {complaint}")


def test_missing_files_empty_splits_and_unset_splits_are_explained(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"there is no file '.*gone.jsonl'"):
        env(options, train=tmp_path / "gone.jsonl").tasks("train")
    with pytest.raises(UsageError, match=r"there is no file '.*gone.jsonl'"):
        env(options, corpus=tmp_path / "gone.jsonl").tasks("train")
    with pytest.raises(UsageError, match="the split 'dev' is empty"):
        env(options, dev=write(tmp_path / "empty.jsonl")).tasks("dev")
    with pytest.raises(UsageError, match=r"no split 'test': there is train, dev \(set env.test=PATH\)"):
        env(options).tasks("test")
    with pytest.raises(UsageError, match="holds no passage"):
        env(options, corpus=write(tmp_path / "empty.jsonl")).tasks("train")


def test_questions_without_passages_and_passages_without_questions_are_refused(
    options: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError, match=r"set env\.corpus or env\.retriever"):
        DeepSearch.Config(train=options["train"])
    with pytest.raises(ValidationError, match=r"set env\.train"):
        DeepSearch.Config(corpus=options["corpus"])


def test_a_file_that_changes_under_a_running_search_is_noticed(options: dict[str, Any]) -> None:
    retriever = corpus_retriever(options["corpus"], options["cache"])
    options["corpus"].write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="changed while it was in use"):
        asyncio.run(retriever.search("Sweden", 1))


class Server(BaseHTTPRequestHandler):
    """Answers by the convention of Search-R1, or as `answer` says."""

    answer: ClassVar[bytes | None] = None
    asked: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        documents = [
            {"document": {"id": "1", "contents": '"Lögdö"\nLögdö lies in Medelpad.'}, "score": 2.5},
            {"title": "Medelpad", "text": "A province."},
            {"document": {"contents": "no title here"}, "score": 0.5},
        ]
        body = self.answer if self.answer is not None else json.dumps({"result": [documents]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "answer", None)
    monkeypatch.setattr(Server, "asked", [])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/retrieve"
        server.shutdown()


def test_a_retrieval_server_is_asked_by_the_convention(options: dict[str, Any], url: str) -> None:
    world = env({"train": options["train"]}, retriever=url, top_k=3)
    seen, _ = play(world, world.tasks("train")[0], "<search> Lögdö?</search>")
    assert Server.asked == [{"queries": ["Lögdö?"], "topk": 3, "return_scores": True}]
    shown = (
        "Doc 1(Title: Lögdö) Lögdö lies in Medelpad.\nDoc 2(Title: Medelpad) A province.\n"
        "Doc 3(Title: ) no title here"
    )
    assert seen[1] == f"<information>{shown}</information>"


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b'{"result": []}', b'{"result": [[1]]}', b'{"result": 1}', b"\xff"]
)
def test_a_server_that_answers_nonsense_is_an_error_that_names_it(
    url: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "answer", answer)
    with pytest.raises(ConnectionError, match=f"the retriever {url} sent no list of documents"):
        asyncio.run(HttpRetriever(url, 5).search("x", 2))


def test_a_server_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(ConnectionError, match=r"the retriever http://127\.0\.0\.1:9/x does not answer"):
        asyncio.run(HttpRetriever("http://127.0.0.1:9/x", 5).search("x", 2))


def test_a_passage_without_an_id_is_known_by_its_title() -> None:
    assert passage_from({"title": "T", "text": "x"}) == Passage("T", "T", "x")
    assert passage_from({"contents": "just text"}) == Passage("just text", "", "just text")
    assert passage_from({"title": "T"}) is None


@pytest.mark.skipif(
    "AGENTRL_MUSIQUE" not in os.environ, reason="AGENTRL_MUSIQUE names no folder with MuSiQue"
)
def test_the_demonstrations_of_musique_succeed(tmp_path: Path) -> None:
    folder = Path(os.environ["AGENTRL_MUSIQUE"])
    files = {name: folder / f"{name}.jsonl" for name in ("corpus", "train", "dev")}
    world = env(files, cache=tmp_path, top_k=5)
    check_env(lambda: env(files, cache=tmp_path))
    outcomes = [play(world, task, *(world.demonstrate(task) or ()))[1] for task in world.tasks("train")]
    assert len(outcomes) == 60
    assert all(outcome.success for outcome in outcomes)
    # The expert's sub-questions lead to passages with the answer, mostly; else retrieval is broken.
    assert sum(outcome.metrics["retrieved_gold"] for outcome in outcomes) > 40
