"""Publish a trained reward model on the Hugging Face hub.

    HF_TOKEN=... python scripts/publish.py --model results/models/demo-seed0 --repo owner/name --private

The repository gets the weights in shards, tokenizer, logs and the card, whose metadata has the base model, the
datasets, the license, and the accuracy with its 95% interval on each benchmark (`model-index`). There is one commit
when all content is on the hub, so that nothing is half published; after an interruption the same command continues.
--dry-run shows what would be published.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.core.errors import UserError
from rewardline.core.hub import upload_model, writable_model


def main(argv: list[str] | None = None) -> int:
    """Publish the model; 0 on success."""
    options = StageParser(__doc__)
    options.add_argument("--model", type=Path, required=True, help="folder of the trained model")
    options.add_argument("--repo", required=True, help="repository, owner/name; it is created if need be")
    options.add_argument("--private", action="store_true", help="create the repository as a private one")
    options.add_argument("--dry-run", action="store_true", help="change nothing on the hub")
    options.add_argument("--max-shard-size", default="5GB", help="largest file of weights, such as 500MB (5GB)")
    options.add_argument("--license", help="license on the hub, such as apache-2.0; default: that of the base model")
    options.add_argument("--base-model", help="base model on the hub; default: that of the training run")
    options.add_argument("--datasets", nargs="+", default=[], help="datasets on the hub; default: those of the mixture")
    args = options.start(argv)

    from rewardline.evaluation.publication import REPLACED, Publication, shard_bytes  # after --help: imports torch

    shard_bytes(args.max_shard_size)
    publication = Publication(args.model, args.repo, args.license, args.base_model, tuple(args.datasets))
    card = publication.card
    try:
        repo = writable_model(args.repo, args.private)
    except UserError as error:
        if not args.dry_run:
            raise
        log.warning("would not be published: %s", error)
    with publication.staged(args.max_shard_size) as folder:
        if args.dry_run:
            print(card.partition("\n---\n")[0] + "\n---")
            for path in sorted(filter(Path.is_file, folder.rglob("*"))):
                print(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}")
        else:
            log.info("published: %s", upload_model(repo, folder, args.private, REPLACED))
    return 0


if __name__ == "__main__":
    run(main)
