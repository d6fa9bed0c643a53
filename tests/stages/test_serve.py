"""The scoring server as a program of its own: shapes of requests, batches, limits, the token, and its end."""

import asyncio
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import serve
from rewardline.core.errors import UserError
from rewardline.scoring.rows import columns, parse_row
from rewardline.scoring.server.listener import bind, listen
from rewardline.scoring.text_scorer import Scorer

from support.paths import ROOT
from support.reward_models import reward_model

TOKEN = "nöt-for-the-log"
LIMITS = {
    "--window": 200,
    "--max-answers": 40,
    "--max-queue": 60,
    "--max-body": 20_000,
    "--max-characters": 30_000,
    "--max-requests": 30,
    "--batch": 32,
    "--max-seconds": 5,
}
QUESTION = "How many are 3 and 4?"
Json = dict[str, Any]


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    scorer: Scorer

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=[(b"Authorization", f"Bearer {TOKEN}".encode())], timeout=60)

    def connection(self, length: int) -> socket.socket:
        """A connection over which the head of a request has gone whose body has `length` bytes."""
        address = httpx.URL(self.url)
        connection = socket.create_connection((address.host, address.port or 80), timeout=60)
        head = f"POST /score HTTP/1.1\r\nHost: {address.host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode())
        return connection

    def post(self, path: str, body: Any) -> Any:
        with self.client() as client:
            response = client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def expected(self, prompt: str, answers: list[str]) -> list[float]:
        (found,) = self.scorer.score([[{"role": "user", "content": prompt}]], [answers])
        assert isinstance(found, list)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("server")
    reward_model(base_models("llama"), root / "model")
    limits = [str(word) for pair in LIMITS.items() for word in pair]
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--model", str(root / "model"), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--threads", "1", "--log", str(root / "log"), *limits],
        env={**os.environ, "REWARDLINE_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"},
    )
    scorer = Scorer(str(root / "model"))
    try:
        yield Server(process, _url(process, root / "log"), root / "log", scorer)
    finally:
        process.kill()
        process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server is, as soon as it answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://\S+", log.read_text()) if log.exists() else None
        if found:
            try:
                if httpx.get(found[0] + "/health").status_code == 200:
                    return found[0]
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_rows_get_the_scores_of_the_command_line(server: Server) -> None:
    answers = ["They are 7.", "No", "They are 8."]
    scores = server.expected(QUESTION, answers)
    messages = [{"role": "user", "content": QUESTION}]
    assert server.post("/score", {"prompt": QUESTION, "answers": answers})["scores"] == pytest.approx(scores, abs=1e-5)
    several = [
        {"prompt": messages, "answer": answers[0]},
        {"prompt": QUESTION},
        {"prompt": QUESTION, "chosen": answers[0], "rejected": answers[1]},
        {"messages": [*messages, {"role": "assistant", "content": answers[2]}]},
    ]
    one, bad, pair, dialogue = server.post("/v1/score", several)
    assert one == {"score": pytest.approx(scores[0], abs=1e-5)}
    assert "neither `answer`" in bad["error"]
    assert list(pair) == ["chosen_score", "rejected_score"]
    assert list(pair.values()) == pytest.approx(scores[:2], abs=1e-5)
    assert dialogue == {"score": pytest.approx(scores[2], abs=1e-5)}


def test_trainers_of_other_projects_get_their_shapes(server: Server) -> None:
    answers = ["They are 7.", "No"]
    scores = server.expected(QUESTION, answers)
    tokenizer = AutoTokenizer.from_pretrained(server.scorer.name)
    end = tokenizer.eos_token
    texts = [f"Human: {QUESTION}\n\nAssistant: {answer}" for answer in answers]
    queries = [texts[0] + end, texts[1]]
    reply = server.post("/get_reward", {"query": queries, "prompts": ["", ""], "labels": [None, None]})
    assert reply["rewards"] == reply["scores"] == pytest.approx(scores, abs=1e-5)
    for path, kind in (("/classify", "probs"), ("/pooling", "data")):
        reply = server.post(path, {"model": "any", "input": [text + end for text in texts]})
        assert [entry["index"] for entry in reply["data"]] == [0, 1]
        assert [entry[kind] for entry in reply["data"]] == [[pytest.approx(score, abs=1e-5)] for score in scores]
        assert reply["usage"]["prompt_tokens"] > 10
        one = server.post(path, {"input": texts[0] + end})
        assert one["data"][0][kind] == [pytest.approx(scores[0], abs=1e-5)]
        ids = [tokenizer(text + end, add_special_tokens=False)["input_ids"] for text in texts]
        for given, expected in ((ids, scores), (ids[1], scores[1:])):
            reply = server.post(path, {"input": given})
            assert [entry[kind] for entry in reply["data"]] == [[pytest.approx(score, abs=1e-5)] for score in expected]
            assert reply["usage"]["prompt_tokens"] == sum(map(len, ids if given is ids else ids[1:]))
        with server.client() as client:
            wrong: list[Any]
            for wrong in ([-1], [10**9], [[]], [1, "a"], [[1], "a"], [True]):
                assert client.post(path, json={"input": wrong}).status_code == 422
    for body in (
        {"text_1": QUESTION, "text_2": answers},
        {"queries": [QUESTION, QUESTION], "documents": answers},
    ):
        reply = server.post("/score", body)
        assert [entry["score"] for entry in reply["data"]] == pytest.approx(scores, abs=1e-5)
        assert (reply["object"], reply["data"][1]["object"]) == ("list", "score")


def test_requests_at_once_share_batches_and_keep_their_scores(server: Server) -> None:
    prompts = [f"How many are {k} and {k}?" + " Say it." * (k % 4) for k in range(25)]
    answers = [[f"They are {2 * k}.", "No" * (k % 6 + 1)] for k in range(25)]
    with server.client() as client, ThreadPoolExecutor(25) as pool:
        before = _metric(client.get("/metrics").text, "rewardline_batch_answers_count")
        bodies = [{"prompt": prompt, "answers": group} for prompt, group in zip(prompts, answers, strict=True)]
        replies = [*pool.map(lambda body: client.post("/score", json=body), bodies)]
        after = client.get("/metrics").text
    for prompt, group, reply in zip(prompts, answers, replies, strict=True):
        assert reply.json()["scores"] == pytest.approx(server.expected(prompt, group), abs=1e-5)
    assert _metric(after, "rewardline_batch_answers_count") - before < 10
    assert _metric(after, "rewardline_answers_total") >= 50
    assert _metric(after, "rewardline_waiting_answers") == 0
    assert _metric(after, 'rewardline_requests_total{path="/score",status="200"}') >= 25


def _metric(text: str, name: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[-1])


def test_what_is_too_much_or_wrong_is_refused(server: Server) -> None:
    row = {"prompt": QUESTION, "answers": ["No"]}
    of_json, plain = {"content-type": "application/json"}, {"content-type": "text/plain"}
    with server.client() as client:
        assert client.post("/score", json=row).status_code == 200
        for status, message, request in (
            (400, "not JSON", {"content": "{", "headers": of_json}),
            (400, "not JSON", {"content": b'"\xff"', "headers": of_json}),
            (400, "not JSON", {"content": "[" * 10_000, "headers": of_json}),
            (415, "application/json", {"content": "{}", "headers": plain}),
            (422, "must be a row", {"json": 3}),
            (422, "no rows", {"json": []}),
            (422, "neither `answer`", {"json": {"prompt": QUESTION}}),
            (422, "the answer alone has", {"json": {"prompt": QUESTION, "answer": "no " * 3000}}),
            (422, "one or as many", {"json": {"text_1": ["a", "b"], "text_2": ["c"]}}),
            (413, "at most 40", {"json": {"prompt": QUESTION, "answers": ["No"] * 41}}),
            (413, "at most 40", {"json": [{}] * 41}),
            (413, "has 38640 characters", {"json": {"prompt": "a" * 900, "answers": ["No"] * 40}}),
            (
                413,
                "has 31480 characters",
                {"json": {"prompt": "a", "answers": ["No"] * 40, "tools": [{"name": "a" * 700}]}},
            ),
            (
                413,
                "has 31720 characters",
                {"json": {"prompt": [{"role": "user", "content": "a"}] * 23, "answers": ["No"] * 40}},
            ),
            (413, "20000 bytes", {"json": {"prompt": "a" * 20_000, "answer": "b"}}),
            (
                413,
                "20000 bytes",
                {"content": iter([b"a" * 15_000] * 2), "headers": of_json},
            ),
        ):
            response = client.post("/score", **request)  # type: ignore[arg-type]
            assert (response.status_code, message in response.json()["error"]) == (status, True), response.text
        assert client.post("/get_reward", json={"query": [3]}).status_code == 422
        assert client.get("/score").status_code == 405
        assert client.post("/other", json=row).status_code == 404


def test_a_full_queue_says_when_to_come_again(server: Server) -> None:
    body = {"prompt": QUESTION, "answers": ["No"] * 35}
    with server.client() as client, ThreadPoolExecutor(4) as pool:
        replies = [*pool.map(lambda _: client.post("/score", json=body), range(4))]
    codes = sorted(reply.status_code for reply in replies)
    assert codes[0] == 200
    assert codes[-1] == 429
    assert all(reply.headers["retry-after"] == "1" for reply in replies if reply.status_code == 429)


def test_requests_that_are_slow_to_come_are_ended_and_others_told_when_to_come_again(server: Server) -> None:
    slow = [server.connection(100) for _ in range(LIMITS["--max-requests"])]
    with server.client() as client:
        refused = _until(503, client)
        assert refused.headers["retry-after"] == "1"
        for connection in slow:
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
            connection.close()
    with server.client() as client:  # the server may be about to close a connection that was idle for as long
        _until(200, client)


def test_text_that_would_fill_the_memory_is_told_when_to_come_again(server: Server) -> None:
    """By what is announced, before a byte of the body is read."""
    with server.client() as client, closing(server.connection(19_000)):
        refused = _until(429, client, {"prompt": QUESTION, "answer": "no " * 4000})
        assert "too much text" in refused.json()["error"]
        assert refused.headers["retry-after"] == "1"
        with closing(server.connection(19_000)) as other:
            assert other.recv(100).startswith(b"HTTP/1.1 429 ")
        _until(200, client, {"prompt": QUESTION, "answer": "no " * 10})
    with server.client() as client:
        _until(200, client, {"prompt": QUESTION, "answer": "no " * 50})


def test_no_connection_waits_for_ever_for_its_client(server: Server) -> None:
    address = httpx.URL(server.url)

    def wait(first: bytes, then: bytes) -> None:
        with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
            connection.sendall(first)
            if first:
                assert connection.recv(1000).startswith(b"HTTP/1.1 ")
            for byte in then:  # byte by byte: it is the whole that has a limit
                connection.sendall(bytes([byte]))
            while connection.recv(1000):  # the rest of the reply, until the server closes the connection
                pass

    unfinished = {
        b"": b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n": b"GET /hea",
        b"POST /score HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n": b"{",
        b"POST /other HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n": b"5\r\n12",
    }
    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(wait, b"", b""), *(pool.submit(wait, *parts) for parts in unfinished.items())]:
            done.result()


def test_what_nobody_waits_for_any_more_is_not_computed(server: Server) -> None:
    body = json.dumps({"prompt": QUESTION, "answers": ["No"] * 20}).encode()
    with server.client() as client:

        def counts() -> tuple[float, float, float]:
            """How many requests were given up, how many answered, and how many answers were computed."""
            text = client.get("/metrics").text
            ended = (f'rewardline_requests_total{{path="/score",status="{status}"}}' for status in (499, 200))
            gone, served = (_metric(text, name) if name in text else 0 for name in ended)
            return gone, served, _metric(text, "rewardline_batch_answers_sum")

        deadline = time.monotonic() + 60
        while True:  # until this client goes faster than the server begins to compute
            assert time.monotonic() < deadline
            before = now = counts()
            connection = server.connection(len(body))
            connection.sendall(body)
            connection.close()
            while now[:2] == before[:2] and time.monotonic() < deadline:
                now = counts()
            if now == (before[0] + 1, *before[1:]):
                break
        assert client.post("/score", json={"prompt": QUESTION, "answer": "No"}).status_code == 200
        assert counts()[2] == now[2] + 1, "nor is it computed later"


def _until(status: int, client: httpx.Client, row: Json | None = None) -> httpx.Response:
    """The first reply of that status."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        response = client.post("/score", json=row or {"prompt": QUESTION, "answers": ["No"]})
        if response.status_code == status:
            return response
    raise AssertionError(response.text)


def test_only_those_with_the_token_are_served(server: Server) -> None:
    row = {"prompt": QUESTION, "answers": ["No"]}
    for wrong in (
        b"",
        b"Bearer",
        b"Bearer other",
        b"Bearer \xe4",
        f"Basic {TOKEN}".encode(),
        f"Bearer {TOKEN}x".encode(),
    ):
        with httpx.Client(base_url=server.url, headers=[(b"Authorization", wrong)]) as client:
            response = client.post("/score", json=row)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics").status_code == 401
            assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("options", "token", "message"),
    [
        (["--max-queue", "5", "--max-answers", "6"], None, "must hold"),
        (["--max-body", "5", "--max-characters", "4"], None, "--max-characters 4 must hold"),
        (["--max-body", "0"], None, "--max-body 0: should be greater than or equal to 1"),
        (["--window", "-1"], None, "--window -1.0: should be greater than or equal to 0"),
        (["--max-seconds", "0"], None, "--max-seconds 0.0: should be greater than 0"),
        (["--port", "70000"], None, "from 0 to 65535"),
        (["--host", "no.such.host.invalid"], None, "choose another"),
        ([], " ", "set but empty"),
    ],
)
def test_options_that_make_no_server_are_refused_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, options: list[str], token: str | None, message: str
) -> None:
    if token is not None:
        monkeypatch.setenv("REWARDLINE_TOKEN", token)
    with pytest.raises(UserError, match=message):
        serve.main(["--model", "results/models/none", *options])


def test_of_two_servers_that_take_a_port_at_once_the_second_says_so() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            listen(first)
            with pytest.raises(UserError, match=f"--port {port}: cannot listen there"):
                listen(second)


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with pytest.raises(UserError, match=f"--port {port}: cannot listen there"):
            serve.main(["--model", "results/models/none", "--port", port])


def _documented(server: Server, begin: str) -> dict[str, Any]:
    """What a block of code in docs/serving.md defines, if its requests go to this server with its token."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    (code,) = [block.partition("\ntrainer = ")[0] for block in blocks if begin in block]
    code = code.replace("http://127.0.0.1:8000", server.url)
    if "Bearer" not in code:
        code = code.replace("timeout=", f"headers={{'Authorization': 'Bearer {TOKEN}'.encode()}}, timeout=")
    client: dict[str, Any] = {}
    exec(code, client)
    return client


def test_openrlhf_asks_by_itself_or_by_a_function(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its `SingleTurnAgentExecutor` does: the decoded tokens of one prompt with its response, special ones kept."""
    answers = ["They are 7.", "No", ""]
    end = AutoTokenizer.from_pretrained(server.scorer.name).eos_token
    heading = f"Human: {QUESTION}\n\nAssistant:"
    queries = [f"{heading} {answer}{end}" for answer in answers]
    monkeypatch.setenv("REWARDLINE_TOKEN", TOKEN)
    function = _documented(server, "def reward_func")["reward_func"]
    found = []
    for query in queries:
        body = {"query": [query], "prompts": [heading], "labels": [""]}
        by_itself = server.post("/get_reward", body)
        info = function([query], [heading], [""])
        for reply in (by_itself, info):
            # what its samples generator does with a reply
            reward = torch.tensor([reply["rewards"]]).flatten()
            score = torch.tensor(
                [reply.get("scores") if reply.get("scores") is not None else reply["rewards"]]
            ).flatten()
            for value in (reply.get("extra_logs") or {}).values():
                assert isinstance(value, torch.Tensor) and value.flatten()[0].item() == reward
            assert reward.shape == score.shape == (1,)
            assert reward == score
            found.append(reward.item())
    scores = server.expected(QUESTION, answers[:2])
    assert found[:4] == pytest.approx([scores[0]] * 2 + [scores[1]] * 2, abs=1e-5)
    assert found[4] == found[5] and math.isfinite(found[4])


def test_verl_gets_a_number_for_each_response(server: Server) -> None:
    """As the reward managers of its reward loop do: in threads of an event loop, a response each."""
    client = _documented(server, "def compute_score")
    answers = ["They are 7.", "No", "no " * 3000, " "]
    messages = np.array([{"role": "user", "content": QUESTION}], dtype=object)  # as pandas reads a list
    prompts = [QUESTION, messages, QUESTION, [{"role": "user", "content": QUESTION}]]
    infos: list[Json] = [{"prompt": prompt, "num_turns": 2, "rollout_reward_scores": {}} for prompt in prompts]
    first, second, empty = server.expected(QUESTION, [*answers[:2], ""])
    expected = [*(pytest.approx(score, abs=1e-5) for score in (first, second)), client["WORST"]]
    expected.append(pytest.approx(empty, abs=1e-5))

    def one(answer: str, info: dict[str, Any]) -> Any:
        given = {"data_source": "any", "solution_str": answer, "ground_truth": "", "extra_info": info}
        return client["compute_score"](**given, reward_router_address=None, reward_model_tokenizer=None)

    async def reward_loop() -> list[Any]:
        loop = asyncio.get_running_loop()
        calls = [partial(one, *pair) for pair in zip(answers, infos, strict=True)]
        return await asyncio.gather(*(loop.run_in_executor(None, call) for call in calls))

    scores = asyncio.run(reward_loop())
    assert scores == expected
    assert all(isinstance(score, float) for score in scores)


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_trl_trains_a_policy_on_the_rewards_of_the_server(
    server: Server, base_models: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    """With the reward function of docs/serving.md."""
    client = _documented(server, "def reward(")
    asked: list[tuple[list[str], list[str], list[float | None]]] = []

    def reward(prompts: list[str], completions: list[str], **more: Any) -> list[float | None]:
        asked.append((prompts, completions, client["reward"](prompts, completions, **more)))
        return asked[-1][2]

    tokenizer = AutoTokenizer.from_pretrained(base_models("llama"))
    tokenizer.chat_template = None
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **sizes, **ids)
    for part in (tokenizer, AutoModelForCausalLM.from_config(config)):
        part.save_pretrained(tmp_path / "policy")
    generation = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8}
    plain = {"max_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no"}
    trainer = getattr(trl, f"{kind}Trainer")(
        model=str(tmp_path / "policy"),
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": [QUESTION] * 4}),
        args=getattr(trl, f"{kind}Config")(output_dir=str(tmp_path / "out"), **generation, **plain),
        processing_class=tokenizer,
    )
    trainer.train()
    ((prompts, completions, rewards),) = asked
    assert len(completions) == 4 and any(value is not None for value in rewards)
    for prompt, completion, value in zip(prompts, completions, rewards, strict=True):
        is_text = "\0" not in completion
        assert value == (pytest.approx(server.expected(prompt, [completion.strip()])[0], abs=1e-5) if is_text else None)
    assert client["reward"]([QUESTION] * 2, [" \n", "no " * 3000]) == [
        pytest.approx(server.expected(QUESTION, [""])[0], abs=1e-5),
        None,
    ]
    call = {"function": {"name": "add", "arguments": {"a": 3}}}
    turns: list[Json] = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "7"}]
    row = {"prompt": QUESTION, "answer": [*turns, {"role": "assistant", "content": "They are 7."}]}
    (value,) = client["reward"]([row["prompt"]], [row["answer"]])
    (scores,) = server.scorer.score(*columns([parse_row(row)]))
    assert isinstance(scores, list) and value == pytest.approx(scores[0], abs=1e-5)
    assert value != pytest.approx(server.expected(QUESTION, ["They are 7."])[0], abs=1e-3), "all turns count"


def test_a_sigterm_lets_requests_end_and_is_no_failure(server: Server) -> None:
    """The last test, as it ends the server."""
    body = {"prompt": QUESTION, "answers": ["They are 7."]}
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        reply = pool.submit(lambda: client.post("/score", json=body))
        time.sleep(0.1)  # it waits for further requests now
        server.process.send_signal(signal.SIGTERM)
        assert reply.result().json()["scores"] == pytest.approx(server.expected(QUESTION, ["They are 7."]), abs=1e-5)
    assert server.process.wait(30) == 0
    text = server.log.read_text()
    assert text.rstrip().endswith("stopped")
    assert TOKEN not in text
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url + "/health")
