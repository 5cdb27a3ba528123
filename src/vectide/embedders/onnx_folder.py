"""The folder of a model, as sentence-transformers keeps it: what the files beside the ONNX graph ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vectide.embedders.local_model import digest_of
from vectide.ports import StartupRefused

#: Where the graph is, in the order of preference.
GRAPHS: Final = ("onnx/model.onnx", "model.onnx")

#: Ways to make one vector of those of the tokens, in the order in which several are put together, and how
#: each is called in older folders.
POOLINGS: Final = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}

_MODULES: Final = {("Transformer", "Pooling"): False, ("Transformer", "Pooling", "Normalize"): True}
#: Of a tokenizer that was saved without a length: 10**30.
_NO_LENGTH: Final = 10**9


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a model is, and how it is to be used. ``max_tokens``: of one text, None when nothing says it;
    ``documents`` and ``queries``: what is put before a text. ``name`` has a digest of all that vectors depend
    on in it, so that another model under the same path is another name."""

    name: str
    graph: Path
    tokenizer: Path
    poolings: tuple[str, ...]
    normalises: bool
    max_tokens: int | None
    lower_case: bool
    padding: int
    documents: str
    queries: str


def read_folder(given: str) -> ModelFolder:
    """The model in that folder, or of that graph in a folder. Raises :class:`StartupRefused` for what is
    missing, and for what cannot be done as sentence-transformers does it."""
    graph, folder = _found(Path(given))
    _require(folder / "tokenizer.json")
    kinds = tuple(str(one["type"]).rpartition(".")[2] for one in _json(folder / "modules.json"))
    if kinds not in _MODULES:
        raise _refused(
            folder, f"{', '.join(kinds)} are its modules: only Transformer, Pooling and Normalize can be"
        )
    path = next(str(one["path"]) for one in _json(folder / "modules.json") if one["type"].endswith("Pooling"))
    pooling = _json(folder / path / "config.json")
    poolings = _poolings(folder, pooling)
    prompts = _optional(folder / "config_sentence_transformers.json").get("prompts") or {}
    documents, queries = prompts.get("document") or "", prompts.get("query") or ""
    if not pooling.get("include_prompt", True) and (documents or queries):
        raise _refused(folder, "its prompts are to be left out of the pooling, which is not supported")
    lower_case = bool(_optional(folder / "sentence_bert_config.json").get("do_lower_case"))
    how = (poolings, _MODULES[kinds], documents, lower_case)
    return ModelFolder(
        name=f"{folder.resolve().name}-{_digest(repr(how), graph, folder / 'tokenizer.json')}",
        graph=graph,
        tokenizer=folder / "tokenizer.json",
        poolings=poolings,
        normalises=_MODULES[kinds],
        max_tokens=_max_tokens(folder),
        lower_case=lower_case,
        padding=_optional(folder / "config.json").get("pad_token_id") or 0,
        documents=documents,
        queries=queries,
    )


def _found(given: Path) -> tuple[Path, Path]:
    """The graph, and the folder that it belongs to."""
    if given.suffix == ".onnx":
        _require(given)
        folders = [folder for folder in given.parents[:2] if (folder / "modules.json").is_file()]
        if folders:
            return given, folders[0]
        raise _refused(given, "there is no modules.json in its folder, nor above it")
    _require(given / "modules.json")
    for name in GRAPHS:
        if (given / name).is_file():
            return given / name, given
    raise _refused(given, f"there is no {' nor '.join(GRAPHS)}: export the model to ONNX")


def _poolings(folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if named is None:
        named = [name for name, flag in POOLINGS.items() if config.get(flag)] or ["mean"]
    names = (named,) if isinstance(named, str) else tuple(named)
    if not set(names) <= POOLINGS.keys():
        raise _refused(folder, f"its pooling {', '.join(map(str, names))} is not known")
    return names


def _max_tokens(folder: Path) -> int | None:
    told = _optional(folder / "sentence_bert_config.json").get("max_seq_length")
    if told:
        return int(told)
    length = int(_optional(folder / "tokenizer_config.json").get("model_max_length") or _NO_LENGTH)
    positions = int(_optional(folder / "config.json").get("max_position_embeddings") or -1)
    least = min(length, positions if positions > 0 else _NO_LENGTH)
    return least if least < _NO_LENGTH else None


def _digest(how: str, graph: Path, tokenizer: Path) -> str:
    """Large models keep their weights in files beside the graph, whose names begin with the graph's."""
    return digest_of(how, (*sorted(graph.parent.glob(f"{graph.name}*")), tokenizer))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _refused(path, "is no JSON") from None


def _optional(path: Path) -> Any:
    return _json(path) if path.is_file() else {}


def _require(path: Path) -> None:
    if not path.is_file():
        raise _refused(path, "there is no such file")


def _refused(path: Path, what: str) -> StartupRefused:
    return StartupRefused(f"VECTIDE_EMBEDDER__MODEL: {path}: {what}")
