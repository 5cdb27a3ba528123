"""The tables file: shapes, paths of problems, and what it compiles to (case 169)."""

from __future__ import annotations

import json

import pytest

from vectide.core.chunks import Chunking
from vectide.core.filters import FilterField, FilterType
from vectide.core.mapping import MetadataField
from vectide.core.softdelete import SoftDelete
from vectide.settings_tables import Tables, parse_tables

FULL = r"""
products:
  source: shop.public.products
  key: [id]
  collection: catalogue
  embed:
    template: "{name}\n\n{description}[\n\nFeatures: {features}]"
  metadata: [category, price, {rating: stars}, {$ts: changed_at}]
  soft_delete: {column: status, values: [archived, 0, true]}
  chunk: {tokens: 500, overlap: 50}
  types: {price: "decimal(10,2)", created: timestamp without time zone, tags: "date[]"}
  store_text: false
  on_incomplete: [dead-letter]
orders:
  source: '^shard\d+\.orders$'
  embed: {columns: [title, note]}
  soft_delete: deleted_at
"""


def table(**changes: object) -> str:
    """One valid table with these changes, as JSON (which is YAML too)."""
    content = {"source": "a.b", "embed": {"columns": ["x"]}} | changes
    return json.dumps({"products": {key: value for key, value in content.items() if value is not None}})


def problems_of(**changes: object) -> tuple[str, ...]:
    return parse_tables(table(**changes)).problems


def read(text: str) -> Tables:
    tables = parse_tables(text)
    assert tables.problems == ()
    return tables


def test_a_full_table_compiles_to_its_mapping() -> None:
    products, orders = read(FULL).mappings
    assert (products.table, products.source, products.collection) == (
        "products",
        "shop.public.products",
        "catalogue",
    )
    assert products.key == ("id",)
    assert products.embed_columns == ("name", "description", "features")
    assert products.metadata == (
        MetadataField("category", "category"),
        MetadataField("price", "price"),
        MetadataField("rating", "stars"),
        MetadataField("$ts", "changed_at"),
    )
    assert products.soft_delete == SoftDelete("status", ("archived", 0, True))
    assert products.chunking == Chunking(500, 50)
    assert products.types == (
        ("price", "decimal(10,2)"),
        ("created", "timestamp without time zone"),
        ("tags", "date[]"),
    )
    assert products.column_types()["price"].read("ALeC") == "469.78"
    assert products.column_types()["tags"].read([0]) == ["1970-01-01"]
    assert orders.types == ()
    assert products.store_text is False
    assert products.on_incomplete == ("dead-letter",)
    assert products.keep_values is False
    assert orders.collection == "orders"
    assert orders.soft_delete == SoftDelete("deleted_at", None)
    assert orders.chunking is None
    assert orders.store_text is True
    assert orders.on_incomplete == ("stored", "reread", "dead-letter")
    assert orders.keep_values is True
    assert orders.matches("shard12.orders")


def test_json_and_yaml_say_the_same() -> None:
    document = {"p": {"source": "a.b", "embed": {"template": "{x}"}, "metadata": ["c", {"$ts": "t"}]}}
    spelled = json.dumps(document, indent="\t")
    yaml = "p:\n  source: a.b\n  embed: {template: '{x}'}\n  metadata: [c, {$ts: t}]\n"
    assert (
        read(spelled)
        == read(yaml)
        == read("{p: {source: a.b, embed: {template: '{x}'}, metadata: [c, {$ts: t}]}}")
    )


def test_soft_delete_values_keep_the_type_they_were_written_in() -> None:
    (mapping,) = read(table(soft_delete={"column": "s", "values": [1, "1", True, 1.5]})).mappings
    assert mapping.soft_delete is not None
    assert [type(value) for value in mapping.soft_delete.values or ()] == [int, str, bool, float]


def test_a_single_name_stands_for_a_list_of_one() -> None:
    (mapping,) = read(table(key="id", embed={"columns": "x"}, on_incomplete="dead-letter")).mappings
    assert mapping.key == ("id",)
    assert mapping.embed_columns == ("x",)


def test_tables_may_share_a_collection_but_not_a_topic() -> None:
    shared = (
        "a: {source: t.one, collection: all, embed: {columns: [x]}}\n"
        "b: {source: t.two, collection: all, embed: {columns: [x]}}\n"
    )
    assert len(read(shared).mappings) == 2
    clash = (
        shared + "c: {source: t.one, embed: {columns: [x]}}\nd: {source: '^t[.]t', embed: {columns: [x]}}\n"
    )
    assert parse_tables(clash).problems == (
        "tables.c.source: takes in the same topic as tables.a.source",
        "tables.d.source: takes in the same topic as tables.b.source",
    )


def test_all_problems_of_all_tables_are_told_with_their_path() -> None:
    """Case 169."""
    text = """
    products:
      sorce: x
      embed: {template: "{a", colums: [x]}
      metadata: [text, {$tz: q}]
      soft_delete: {column: 3}
      on_incomplete: guess
    Bad Name: {}
    empty:
    """
    assert [problem.partition(": ")[0] for problem in parse_tables(text).problems] == [
        "tables.products.source",
        "tables.products.embed.colums",
        "tables.products.soft_delete.column",
        "tables.products.on_incomplete.0",
        "tables.products.sorce",
        "tables.products",
        "tables.products",
        "tables.Bad Name",
        "tables.empty",
    ]


def test_a_broken_template_is_told_beside_the_other_problems_of_its_table() -> None:
    found = problems_of(embed={"template": "{a"}, metadata=["_vectide"], stor_text=True)
    assert [problem.partition(": ")[0] for problem in found] == [
        "tables.products.stor_text",
        "tables.products.embed.template",
        "tables.products",
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sorce": "x"}, "tables.products.sorce: unknown key; did you mean source?"),
        ({"nonsense": 1}, "tables.products.nonsense: unknown key"),
        (
            {"embed": {"columns": ["x"], "templat": "x"}},
            "tables.products.embed.templat: unknown key; did you mean template?",
        ),
        ({"embed": {}}, "tables.products.embed: needs either template or columns"),
        (
            {"embed": {"columns": ["x"], "template": "{x}"}},
            "tables.products.embed: needs either template or columns",
        ),
        ({"embed": {"columns": []}}, "tables.products.embed: needs either template or columns"),
        ({"embed": None}, "tables.products.embed: Field required"),
        ({"source": 7}, "tables.products.source: must be a valid string"),
        (
            {"on_incomplete": ["dead-letter", "stored"]},
            "tables.products.on_incomplete: must name each way once, dead-letter last",
        ),
        ({"on_incomplete": []}, "tables.products.on_incomplete: must name each way once, dead-letter last"),
        (
            {"metadata": [3]},
            "tables.products.metadata: must be a list of names and of {column: name in the store}",
        ),
        (
            {"soft_delete": {"column": "x", "values": []}},
            "tables.products.soft_delete.values: must be a list of values",
        ),
        (
            {"soft_delete": {"column": "x", "values": [None]}},
            "tables.products.soft_delete.values: must hold only texts, numbers and booleans",
        ),
        ({"chunk": {"overlap": 5}}, "tables.products.chunk.tokens: Field required"),
        (
            {"chunk": {"token": 5, "tokens": 500}},
            "tables.products.chunk.token: unknown key; did you mean tokens?",
        ),
        ({"chunk": {"tokens": 15}}, "tables.products.chunk.tokens: must be greater than or equal to 16"),
        (
            {"chunk": {"tokens": 500, "overlap": -1}},
            "tables.products.chunk.overlap: must be greater than or equal to 0",
        ),
        (
            {"chunk": {"tokens": 501, "overlap": 251}},
            "tables.products: chunk.overlap is 251: it can be 0 to 250, half of chunk.tokens",
        ),
    ],
)
def test_a_wrong_key_is_one_problem(change: dict[str, object], problem: str) -> None:
    assert problems_of(**change) == (problem,)


def test_a_type_that_does_not_exist_is_told_with_those_there_are() -> None:
    wrong, wrong_too = problems_of(types={"price": "decimel(10,2)", "day": "date", "n": 5})
    assert wrong.startswith("tables.products.types.price: 'decimel(10,2)' is not a type; there are decimal, ")
    assert wrong_too == "tables.products.types.n: must be a valid string"
    assert problems_of(types=["price"]) != ()


@pytest.mark.parametrize("source", ["a b", "", "x" * 250, "^(", ".."])
def test_a_source_must_be_a_topic_or_a_pattern(source: str) -> None:
    (problem,) = problems_of(source=source)
    assert problem.startswith("tables.products.source: ")


@pytest.mark.parametrize("name", ["text", "_vectide", "_vectide_x"])
def test_a_metadata_name_that_is_reserved_is_refused_and_can_be_renamed(name: str) -> None:
    """Case 53."""
    (problem,) = problems_of(metadata=[name])
    assert "reserved" in problem
    assert problems_of(metadata=[{name: "other"}]) == ()


def test_two_metadata_values_cannot_share_a_name() -> None:
    (problem,) = problems_of(metadata=["a", {"b": "a"}])
    assert problem.startswith("tables.products: metadata")


@pytest.mark.parametrize("name", ["Products", "a b", "x" * 64, "a/b", "", "ä"])
def test_a_table_id_is_restricted(name: str) -> None:
    (problem,) = parse_tables(json.dumps({name: {"source": "a", "embed": {"columns": "x"}}})).problems
    assert "a table's id must be" in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {source: x\n", "not valid YAML: "),
        ("a:\n\tb: 1", "line 2"),
        ("a: {source: x}\na: {source: y}", "given twice"),
        ('{"a": {"source": "x", "source": "y"}}', "the key source is given twice"),
        ("[]", "must map each table's id"),
        ("just text", "must map each table's id"),
        ("{}", "must map each table's id"),
        ("# nothing", "must map each table's id"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("{[a]: 1}", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("[" * 2000, "not valid YAML"),
        ('{"a":' * 2000, "not valid YAML"),
    ],
)
def test_an_unreadable_document_is_one_problem(text: str, says: str) -> None:
    (problem,) = parse_tables(text).problems
    assert problem.startswith("tables: ")
    assert says in problem
    assert "\n" not in problem


def test_a_filter_is_parsed_and_its_faults_are_told_with_the_others() -> None:
    """Case 169."""
    (mapping,) = read(table(where="tenant_id <> 0 AND body IS NOT NULL")).mappings
    assert mapping.where_columns == ("tenant_id", "body")
    wrong = {"source": "a.b", "embed": {"columns": ["x"]}, "where": "lower(a) = 'x'", "metadata": ["text"]}
    assert parse_tables(json.dumps({"p": wrong})).problems == (
        "tables.p.where: does not know LOWER(a): only columns and constants can be compared",
        "tables.p: metadata: the name 'text' is reserved: write {text: another_name}",
    )


def test_names_to_filter_by_have_the_declared_type() -> None:
    [mapping] = read(
        table(
            metadata=["a", "b", "c", "d", "e", "f", {"$ts": "at"}, {"$op": "op"}],
            types={"a": "int unsigned", "b": "numeric(10,2)", "c": "timestamptz", "d": "text[]", "e": "bool"},
            filter=["a", "b", "c", "d", "e", "at", "op", {"f": "number"}],
        )
    ).mappings
    kinds = "integer text time text boolean integer text number".split()
    assert [field.type.value for field in mapping.filters] == kinds
    assert [field.name for field in mapping.filters] == ["a", "b", "c", "d", "e", "at", "op", "f"]


def test_names_to_filter_by_may_be_a_mapping() -> None:
    [mapping] = read(table(metadata=["a", {"b": "c"}], filter={"a": "text", "c": "integer"})).mappings
    assert mapping.filters == (FilterField("a", FilterType.TEXT), FilterField("c", FilterType.INTEGER))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            ["a"],
            "tables.products.filter: 'a' has no declared type: write {a: type}, one of text, integer, "
            "number, boolean, time",
        ),
        (
            [{"a": "decimal"}],
            "tables.products.filter: 'decimal' is not a type: there are text, integer, number, boolean, time",
        ),
        (
            ["nowhere"],
            "tables.products: filter names 'nowhere', which is not among the metadata: write it "
            "there as well",
        ),
        ([{"a": "text"}, {"a": "text"}], "tables.products: filter names 'a' more than once"),
        ([5], "tables.products.filter: must be a list of names and of {name: type}"),
    ],
)
def test_what_cannot_be_filtered_by_is_told(given: object, problem: str) -> None:
    assert problems_of(metadata=["a"], filter=given) == (problem,)


def test_tables_of_one_collection_agree_on_the_type_of_a_name() -> None:
    one = {"source": "a.b", "embed": {"columns": ["x"]}, "collection": "c", "metadata": ["n"]}
    tables = {
        "first": one | {"filter": {"n": "text"}},
        "second": one | {"source": "a.c", "filter": {"n": "number"}},
    }
    [problem] = parse_tables(json.dumps(tables)).problems
    assert problem == (
        "tables.second.filter: 'n' is number here and text in tables.first, of the same collection"
    )
    tables["second"]["collection"] = "d"
    assert parse_tables(json.dumps(tables)).problems == ()


def test_a_tenant_is_metadata_and_text() -> None:
    tenant = FilterField("org", FilterType.TEXT, tenant=True)
    for given in ({}, {"metadata": ["org"]}, {"metadata": ["org"], "filter": ["org"]}):
        [mapping] = read(table(tenant="org", **given)).mappings
        assert mapping.metadata == (MetadataField("org", "org", as_text=True),)
        assert (mapping.filters, mapping.tenant) == ((tenant,), "org")
    [mapping] = read(table(tenant="id", metadata=["a", {"id": "org"}], filter={"a": "time"})).mappings
    assert mapping.metadata == (MetadataField("a", "a"), MetadataField("id", "org", as_text=True))
    assert mapping.filters == (tenant, FilterField("a", FilterType.TIME))
    [problem] = problems_of(tenant="org", filter={"org": "integer"})
    assert problem == "tables.products: filter names 'org' more than once"


def test_tables_of_one_collection_agree_on_the_tenant() -> None:
    one = {"source": "a.b", "embed": {"columns": ["x"]}, "collection": "c", "tenant": "org"}
    tables = {"first": one, "second": one | {"source": "a.c", "tenant": None}}
    [problem] = parse_tables(json.dumps(tables)).problems
    assert problem == (
        "tables.second.tenant: is not given here and org in tables.first, of the same collection"
    )


def test_tables_of_one_collection_fill_the_same_vector() -> None:
    one = {"source": "a.b", "embed": {"columns": ["x"]}, "collection": "c", "vector": "title"}
    tables = {"first": one, "second": one | {"source": "a.c", "vector": "body"}}
    [problem] = parse_tables(json.dumps(tables)).problems
    assert problem == "tables.second.vector: is body here and title in tables.first, of the same collection"
    tables["second"]["vector"] = "title"
    assert [mapping.vector for mapping in read(json.dumps(tables)).mappings] == ["title", "title"]
