"""The command line options of the scorer, for files and for the server."""

import argparse
import inspect
import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rewardline.core import runtime
from rewardline.core.errors import UserError
from rewardline.core.files import home_expanded
from rewardline.scoring.settings import ENSEMBLE, CombineSettings

if TYPE_CHECKING:
    from rewardline.scoring.ensemble import AnyScorer


def add_model_options(options: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_argument(
        "--model",
        required=True,
        nargs="+",
        action="extend",
        type=home_expanded,
        help="folder of a trained reward model or of an ensemble, or name on the hub; several are an ensemble",
    )
    options.add_argument(
        "--combine", choices=get_args(CombineSettings.model_fields["combine"].annotation), help="of an ensemble"
    )
    options.add_argument("--variance-weight", type=float, help="of --combine mean_minus_variance (0.5)")
    options.add_argument("--revision", default="main", help="commit, tag or branch of a model on the hub")
    options.add_argument("--batch-tokens", type=int, default=8192, help="most tokens computed at once")
    options.add_argument("--max-length", type=int, help="most tokens of prompt and answer; the model's own by default")
    options.add_argument("--template", choices=["chat", "plain"], help="how a conversation becomes text")
    options.add_argument(
        "--tokenizer", type=home_expanded, help="folder or name of another tokenizer than the one beside the model"
    )
    options.add_argument("--dtype", choices=["auto", "fp32", "bf16", "fp16"], default="auto", help="of the weights")
    options.add_argument("--raw", action="store_true", help="leave out the normalization that is stored with the model")
    options.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="processes that hold the model together; 0: one, or one for each GPU if it is too large for one",
    )
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--trust-remote-code", action="store_true", help="execute the model repository's own code")
    options.add_argument(
        "--convert-bin", action="store_true", help="read weights that exist only as .bin, without executing code"
    )
    options.add_argument(
        "--num-padding-at-beginning", type=int, metavar="N", help="as given to DeepSpeed-Chat for its folder"
    )


def load_scorer(args: argparse.Namespace) -> "AnyScorer":
    """The scorer that the options select."""
    for name in ("batch_tokens", "max_length", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if args.variance_weight is not None and not 0 <= args.variance_weight < math.inf:
        raise UserError(f"--variance-weight {args.variance_weight:g}: must be at least 0, and finite")
    is_ensemble = len(args.model) > 1 or (Path(args.model[0]) / ENSEMBLE).is_file()
    if not is_ensemble and (args.combine is not None or args.variance_weight is not None):
        raise UserError(f"--combine is for an ensemble, and {args.model[0]} is one model; name several with --model")
    runtime.quiet(args.threads)
    from rewardline.model.external import model_folder
    from rewardline.scoring.ensemble import load_ensemble
    from rewardline.scoring.text_scorer import Scorer, open_scorer

    names = inspect.signature(Scorer).parameters.keys() - {"model"}
    given = {name: getattr(args, name) for name in names}

    def load(model: str) -> Scorer:
        folder = model_folder(model, revision=args.revision, code=args.trust_remote_code, bins=args.convert_bin)
        return open_scorer(folder, partial(Scorer, model, **given), args.dtype, args.processes)

    if is_ensemble:
        return load_ensemble(args.model, args.combine, args.variance_weight, load, raw=args.raw)
    return load(args.model[0])
