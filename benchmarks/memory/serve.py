"""Memory of the server under a burst of large requests.

    python benchmarks/memory/serve.py --model results/models/demo-seed0 --requests 120

Starts `serve.py` on a free port, sends requests of a million letters all at once, repeats those that are refused for
lack of room, and prints the resident memory before the burst and its peak, and how requests were answered.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx

ROOT = Path(__file__).resolve().parents[2]


def memory(process: int, key: str) -> int:
    """MiB of a process: VmRSS is resident, VmHWM its peak."""
    found = re.search(rf"{key}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) >> 10


def send(client: httpx.Client, number: int, letters: int) -> Counter[int]:
    """Send a request until it is not refused for lack of room; how often each status came."""
    text = "".join(Random(number).choices("abcdefghijklmnopqrstuvwxyz ", k=letters))
    body, statuses = json.dumps({"prompt": text, "answer": "yes"}).encode(), Counter[int]()
    headers, wait = {"Content-Type": "application/json"}, 1.0
    while True:
        try:
            status = client.post("/score", content=body, headers=headers).status_code
        except httpx.TransportError:  # refused while the body was being sent
            status = 429
        statuses[status] += 1
        if status not in (429, 503):
            return statuses
        time.sleep(wait)
        wait = min(2 * wait, 8.0)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--letters", type=int, default=999_000)
    args, options = parser.parse_known_args()
    command = [sys.executable, str(ROOT / "scripts/serve.py"), "--model", args.model, "--port", "0", *options]
    with tempfile.NamedTemporaryFile("r") as log, subprocess.Popen([*command, "--log", log.name]) as process:
        while not (url := re.search(r"http://\S+", Path(log.name).read_text())):
            time.sleep(0.2)
        client = httpx.Client(base_url=url[0], timeout=600, limits=httpx.Limits(max_connections=None))
        send(client, 0, 1000)
        before, start = memory(process.pid, "VmRSS"), time.monotonic()
        with ThreadPoolExecutor(args.requests) as pool:
            sent = pool.map(lambda k: send(client, k, args.letters), range(args.requests))
            statuses = dict(sum(sent, Counter[int]()))
        peak = memory(process.pid, "VmHWM")
        print(f"{before} MiB before, at most {peak} MiB; {time.monotonic() - start:.0f} s; {statuses}")
        process.terminate()


if __name__ == "__main__":
    main()
