"""vectide keeps a vector store equal to a database: Debezium change events in, embeddings out."""

__version__ = "0.1.0"
