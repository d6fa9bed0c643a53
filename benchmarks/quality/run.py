"""A real model on real preferences, beside what it should beat, and each remedy on and off.

    pip install -r benchmarks/quality/requirements.txt
    python benchmarks/quality/run.py --data FOLDER                          Anthropic's HH, everything: hours
    python benchmarks/quality/run.py --data FOLDER --part shallow --family hh rmb humour ukp           minutes
    python benchmarks/quality/run.py --data FOLDER --small                  a trial of the whole with tiny random models

The folder of the data has hh_rlhf_test, rmb, ukp_convarg1 and ukp_humour, see README.md beside this file. Training is
that of the pipeline, in `--folder`; after an interruption, the same command continues. It writes results.json and
results.md there, after each part.
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from baselines import shallow
from figures import compared, markdown
from pipeline import Family, Plan
from remedies import REMEDIES, remedies
from sets import FAMILIES
from trained import train

from rewardline.core.files import write_json
from rewardline.core.settings import JsonObject

PARTS = ("shallow", "models", "remedies")


def judged(family: Family, parts: list[str], peer_python: str | None) -> JsonObject:
    """Results of the shallow models, and of the trained ones if `parts` has them."""
    pairs = family.results / "pairs"
    family.make([f"pairs/{name}/stats.json" for name in ("train", *family.tests.values())])
    tables = shallow(pairs / "train", {name: pairs / test for name, test in family.tests.items()})
    result: JsonObject = {"train": family.training_pairs(), "known": FAMILIES[family.name].known}
    model = None
    if "models" in parts:
        runs, others, result["trained"] = train(family, peer_python)
        for name, test in family.tests.items():
            columns = {**others[test], **{method: family.scores(run, test).correct for method, run in runs.items()}}
            tables[name] = tables[name].join(pd.DataFrame(columns))
        model = result["model"] = list(runs)[-1]
    return {**result, "sets": compared(tables, model)}


def main(argv: list[str] | None = None) -> int:
    """Run the parts that were asked for, and write the results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the real data")
    options.add_argument("--folder", type=Path, default=Path("results/quality"), help="for all that is made")
    options.add_argument("--family", nargs="+", choices=FAMILIES, default=["hh"])
    options.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--share", type=float, default=1.0, help="share of the training prompts")
    options.add_argument("--test-share", type=float, default=1.0, help="share of the held-out prompts")
    options.add_argument("--fractions", type=float, nargs="+", default=[0.1, 0.3, 1.0], help="the learning curves")
    options.add_argument("--rates", type=int, default=3, help="number of learning rates to choose from")
    options.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="bf16: on processors that have it"
    )
    options.add_argument("--remedy-share", type=float, default=0.25, help="of these, for the remedies")
    options.add_argument("--remedy", nargs="+", choices=REMEDIES, default=list(REMEDIES), help="some of the remedies")
    options.add_argument("--seeds", type=int, default=3, help="of each remedy")
    options.add_argument("--folds", type=int, default=4, help="of the audit")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--peer-python", default=sys.executable if importlib.util.find_spec("trl") else None,
                         help="Python with TRL, '' for without; default: this one, if it has TRL")  # fmt: skip
    options.add_argument("--small", action="store_true", help="few pairs, few steps, random models: minutes")
    args = options.parse_args(argv)
    if not args.data.is_dir():
        options.error(f"--data: there is no folder {args.data}; see benchmarks/quality/README.md")
    plan = Plan(
        data=args.data.resolve(),
        **{
            name: getattr(args, name)
            for name in ("share", "test_share", "rates", "precision", "seeds", "folds", "threads", "small")
        },
        fractions=sorted(args.fractions),
        steps=None,
    )
    if args.small:
        args.remedy_share = 1
        plan = Plan(
            plan.data, 0.05, 0.1, [0.5, 1.0], 2, args.precision, seeds=2, folds=2, steps=8, threads=1, small=True
        )
    folder = args.folder.resolve()
    path = folder / "results.json"
    results: JsonObject = json.loads(path.read_text()) if path.exists() else {"families": {}}
    for name in args.family:
        family = Family(name, plan, folder, folder)
        found = results["families"].setdefault(name, {})
        found["options"] = {key: value for key, value in vars(plan).items() if key != "data"}
        for part in ("sets", "remedies"):
            if part == "sets" and {"shallow", "models"} & set(args.part):
                found.update(judged(family, args.part, args.peer_python or None))
            if part == "remedies" and part in args.part:
                smaller = replace(plan, share=plan.share * args.remedy_share, fractions=[1.0])
                found[part] = remedies(Family(name, smaller, folder / "remedies", folder), args.remedy)
            write_json(path, results)
            (folder / "results.md").write_text(markdown(results), encoding="utf-8")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
