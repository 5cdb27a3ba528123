"""The loop that one writes in an afternoon: consume 256, embed them in one call, upsert them, commit.

What it does it does properly: one request for all texts, vectors in binary, one transaction, a primary key
that makes repeats harmless, the offset committed after the rows, the last change of a row winning in a batch.
It keeps nothing in parallel, embeds whatever comes, knows no failure, and stops where one happens.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import psycopg
from confluent_kafka import Consumer, Message
from openai import OpenAI
from pgvector.psycopg import register_vector

BATCH = 256
UPSERT = (
    "INSERT INTO products (id, text, metadata, embedding) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE"
    " SET text = excluded.text, metadata = excluded.metadata, embedding = excluded.embedding"
)


def table(dimensions: int, *, indexed: bool) -> str:
    """As vectide makes it: the same index on the vectors, the same room for updates on a page."""
    index = "CREATE INDEX ON products USING hnsw (embedding vector_cosine_ops)" if indexed else ""
    return (
        "CREATE EXTENSION IF NOT EXISTS vector;"
        f"CREATE TABLE products (id bigint PRIMARY KEY, text text NOT NULL, metadata jsonb NOT NULL,"
        f" embedding vector({dimensions}) NOT NULL) WITH (fillfactor = 70);"
        f"{index}"
    )


def changes(messages: list[Message]) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """The newest row of each id, and the ids that are gone."""
    rows: dict[int, dict[str, Any] | None] = {}
    for message in messages:
        value = message.value()
        if value is not None:  # a tombstone says nothing that the delete before it did not say
            event = json.loads(value)
            rows[json.loads(message.key() or b"")["id"]] = event["after"]
    return {id_: row for id_, row in rows.items() if row}, [id_ for id_, row in rows.items() if not row]


def main() -> None:
    env = os.environ
    consumer = Consumer(
        {
            "bootstrap.servers": env["BOOTSTRAP"],
            "group.id": env["GROUP"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    client = OpenAI(base_url=env["PROVIDER"], api_key="unused")
    with psycopg.connect(env["DSN"]) as database:
        database.execute(table(int(env["DIMENSIONS"]), indexed=bool(env["INDEXED"])).encode())
        database.commit()
        register_vector(database)
        consumer.subscribe([env["TOPIC"]], on_assign=lambda *_: print("assigned", flush=True))
        while True:
            messages = [message for message in consumer.consume(BATCH, 0.1) if message.error() is None]
            if messages:
                write(database, client, *changes(messages))
                consumer.commit(asynchronous=False)


def write(
    database: psycopg.Connection[Any], client: OpenAI, rows: dict[int, dict[str, Any]], gone: list[int]
) -> None:
    """Embed and upsert the rows, delete those that are gone, in one transaction."""
    cursor = database.cursor()
    if rows:
        texts = [f"{row['name']}\n\n{row['description']}" for row in rows.values()]
        parameters = []
        for row, text, vector in zip(rows.values(), texts, embedded(client, texts), strict=True):
            metadata = json.dumps({"price": row["price"], "stock": row["stock"]})
            parameters.append((row["id"], text, metadata, np.array(vector, dtype=np.float32)))
        cursor.executemany(UPSERT, parameters)
    if gone:
        cursor.execute("DELETE FROM products WHERE id = ANY(%s)", [gone])
    database.commit()


def embedded(client: OpenAI, texts: list[str]) -> list[list[float]]:
    """In one call, or in as few as the provider allows."""
    most = int(os.environ["PROVIDER_ITEMS"] or BATCH)
    slices = [texts[start : start + most] for start in range(0, len(texts), most)]
    answers = [client.embeddings.create(model="hashing", input=part).data for part in slices]
    return [one.embedding for answer in answers for one in answer]


if __name__ == "__main__":
    main()
