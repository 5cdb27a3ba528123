-- The store: vectide makes its tables in there by itself.
CREATE DATABASE vectors;
