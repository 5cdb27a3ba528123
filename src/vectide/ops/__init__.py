"""Operations: metrics, logs and the HTTP endpoints."""
