"""The command line options of the scorer, for files and for the server."""

import argparse
import inspect
import os
from typing import TYPE_CHECKING

from rewardline.core import runtime
from rewardline.core.errors import UserError
from rewardline.core.files import home_expanded

if TYPE_CHECKING:
    from rewardline.scoring.text_scorer import Scorer


def add_model_options(options: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_argument(
        "--model", required=True, type=home_expanded, help="folder of a trained reward model, or its name on the hub"
    )
    options.add_argument("--revision", default="main", help="commit, tag or branch of a model on the hub")
    options.add_argument("--batch-tokens", type=int, default=8192, help="most tokens computed at once")
    options.add_argument("--max-length", type=int, help="most tokens of prompt and answer; the model's own by default")
    options.add_argument("--template", choices=["chat", "plain"], help="how a conversation becomes text")
    options.add_argument(
        "--tokenizer", type=home_expanded, help="folder or name of another tokenizer than the one beside the model"
    )
    options.add_argument("--dtype", choices=["auto", "fp32", "bf16", "fp16"], default="auto", help="of the weights")
    options.add_argument("--raw", action="store_true", help="leave out the normalization that is stored with the model")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--trust-remote-code", action="store_true", help="execute the model repository's own code")
    options.add_argument(
        "--convert-bin", action="store_true", help="read weights that exist only as .bin, without executing code"
    )
    options.add_argument(
        "--num-padding-at-beginning", type=int, metavar="N", help="as given to DeepSpeed-Chat for its folder"
    )


def load_scorer(args: argparse.Namespace) -> "Scorer":
    """The scorer that the options select."""
    for name in ("batch_tokens", "max_length", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    runtime.quiet(args.threads)
    from rewardline.scoring.text_scorer import Scorer

    names = inspect.signature(Scorer).parameters
    return Scorer(**{name: getattr(args, name) for name in names})
