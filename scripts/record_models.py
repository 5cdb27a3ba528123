"""Makes the tiny transformer that tests run, and records what sentence-transformers makes of texts with it.

    python3.11 -m venv VENV && VENV/bin/pip install "sentence-transformers==6.2.0" onnx onnxscript onnxruntime
    VENV/bin/python scripts/record_models.py             # makes tests/data/models anew
    VENV/bin/python scripts/record_models.py FOLDER      # a real model's folder: exports it where it has no
                                                         # ONNX graph, and writes FOLDER/expected.json

It needs torch, several gigabytes of it, which is why the tests do without and compare with what was recorded.
The weights are random, from a fixed seed; the vocabulary is learnt from the texts below.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

MODELS: Final = Path(__file__).resolve().parent.parent / "tests" / "data" / "models"

TEXTS: Final = (
    "A red wooden chair for the kitchen",
    "Noise-cancelling headphones with a travel case",
    "Organic green tea from the mountains of Japan",
    "A blue wooden chair for the garden",
    "  Two  spaces,\ttabs\nand line ends ",
    "UPPER and lower Case, ÄÖÜ, é and e\u0301",
    "日本語の文章です。 שלום עולם مرحبا 🎉",
    "price: 19.99 (in stock)",
    "x",
    " ".join(["chair", "tea", "garden"] * 30),
)


def _pooling(*modes: str, include_prompt: bool = True) -> dict[str, Any]:
    return {
        "word_embedding_dimension": 32,
        **{f"pooling_mode_{mode}": True for mode in modes},
        "include_prompt": include_prompt,
    }


def _modules(*kinds: str) -> list[dict[str, Any]]:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [
        {"idx": n, "name": str(n), "path": paths[kind], "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]


def _prompts(**prompts: str) -> dict[str, Any]:
    return {"config_sentence_transformers.json": {"prompts": prompts}}


_POOLING: Final = "1_Pooling/config.json"
_PLAIN: Final = {"modules.json": _modules("Transformer", "Pooling")}

#: Name -> files of the folder that are different, as JSON.
VARIATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "mean, normalised": {},
    "mean": _PLAIN,
    "cls": {_POOLING: _pooling("cls_token")},
    "max": _PLAIN | {_POOLING: _pooling("max_tokens")},
    "mean by root": _PLAIN | {_POOLING: _pooling("mean_sqrt_len_tokens")},
    "weighted mean": {_POOLING: _pooling("weightedmean_tokens")},
    "last token": {_POOLING: _pooling("lasttoken")},
    "several": _PLAIN | {_POOLING: _pooling("mean_tokens", "cls_token", "max_tokens")},
    "named modes": {_POOLING: {"embedding_dimension": 32, "pooling_mode": ["mean", "lasttoken"]}},
    "prompts": _prompts(query="search: ", document="product: "),
    "passages": _prompts(query="query: ", passage="passage: "),
    "lower case": {"sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True}},
}


def make_tiny(folder: Path) -> None:
    """The tiny model, as sentence-transformers keeps models, with its graph beside it."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=specials, min_frequency=1)
    corpus = [*TEXTS, "".join(map(chr, range(33, 127))), "search query passage product item thread text"]
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
        model_max_length=128,
    )
    torch.manual_seed(20)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
        pad_token_id=0,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():  # so that texts that share words are near each other
        for name, weights in model.named_parameters():
            if weights.dim() == 2 and "word_embeddings" not in name:
                weights *= 0.2
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    files = {
        "modules.json": _modules("Transformer", "Pooling", "Normalize"),
        _POOLING: _pooling("mean_tokens"),
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}},
    }
    write(folder, files)
    export(folder)


def write(folder: Path, files: Mapping[str, Any]) -> None:
    """JSON files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def export(folder: Path) -> None:
    """The transformer in ``folder`` as an ONNX graph, in one file."""
    import torch
    from transformers import AutoModel

    class Tokens(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state

    names = ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, types = torch.randint(5, 100, (2, 7)), torch.ones((2, 7), dtype=torch.int64), torch.zeros(2, 7)
    mask[1, 5:] = 0
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    (folder / "onnx").mkdir(exist_ok=True)
    torch.onnx.export(
        Tokens().eval(),
        (ids, mask, types.to(torch.int64)),
        folder / "onnx" / "model.onnx",
        input_names=list(names),
        output_names=["last_hidden_state"],
        dynamic_shapes=(sizes, sizes, sizes),
        external_data=False,
        dynamo=True,
    )
    forget_origins(folder / "onnx" / "model.onnx")


def forget_origins(path: Path) -> None:
    """Take out of a graph what its exporter notes of the machine: the stack, paths included, behind each
    node. The vectors are the same without."""
    import onnx

    model = onnx.load(str(path))
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in model.functions:
        for part in (function, *function.node):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def recorded(folder: Path) -> dict[str, Any]:
    """What sentence-transformers makes of the texts."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    texts = list(TEXTS)
    return {
        "documents": _rounded(model.encode_document(texts).tolist()),
        "queries": _rounded(model.encode_query(texts).tolist()),
    }


def _rounded(vectors: list[list[float]]) -> list[list[float]]:
    return [[round(number, 5) for number in vector] for vector in vectors]


def main(argv: list[str]) -> None:
    if argv:
        folder = Path(argv[0])
        if not (folder / "onnx" / "model.onnx").exists():
            export(folder)
        (folder / "expected.json").write_text(json.dumps({"texts": TEXTS} | recorded(folder)), "utf-8")
        return
    tiny = MODELS / "tiny"
    shutil.rmtree(tiny, ignore_errors=True)
    tiny.mkdir(parents=True)
    make_tiny(tiny)
    expected: dict[str, Any] = {"texts": TEXTS, "variations": {}}
    for name, files in VARIATIONS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "tiny"
            shutil.copytree(tiny, folder)
            write(folder, files)
            expected["variations"][name] = {"files": files} | recorded(folder)
    text = json.dumps(expected, ensure_ascii=False, indent=None, separators=(",", ":"))
    (MODELS / "expected.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
