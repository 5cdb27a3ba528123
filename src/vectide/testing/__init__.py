"""Fakes that honour the contracts, and the embedded parts that the demo and the tests run on."""
