"""Serve the scores of a reward model over HTTP, for trainers that use a remote one. See docs/serving.md.

    python scripts/serve.py --model results/models/demo-seed0
    curl -s localhost:8000/score -H 'Content-Type: application/json' -d '{"prompt": "2 + 2?", "answers": ["4.", "5."]}'

It listens on this machine alone unless --host says otherwise. If the environment variable REWARDLINE_TOKEN is set,
clients must send its value as bearer token. On a SIGTERM it answers what it has accepted and ends.
"""

import os

from rewardline.core.cli import StageParser, log, run
from rewardline.core.errors import UserError
from rewardline.scoring.options import add_model_options, load_scorer
from rewardline.scoring.server.limits import add_limit_options, limits_of
from rewardline.scoring.server.listener import bind, is_loopback, run_server

TOKEN = "REWARDLINE_TOKEN"


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal."""
    options = StageParser(__doc__)
    add_model_options(options)
    options.add_argument("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1 is this machine alone")
    options.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    add_limit_options(options)
    args = options.start(argv)
    limits = limits_of(args)
    token = os.environ.get(TOKEN)
    if token is not None and not token.strip():
        raise UserError(f"{TOKEN} is set but empty; unset it, or give it a value")
    bound = bind(args.host, args.port)
    if token is None and not is_loopback(bound):
        log.warning("anyone who reaches %s can ask for scores; set %s to require a token", args.host, TOKEN)
    scorer = load_scorer(args)

    from rewardline.scoring.server.app import Service

    service = Service(scorer, limits, os.fsencode(token.strip()) if token else None)
    run_server(service.app(), bound, scorer.name, limits.max_seconds)
    return 0


if __name__ == "__main__":
    run(main)
