"""How hard the property tests try: ``pytest --hypothesis-profile=fuzz`` tries for long."""

from hypothesis import settings

# Time limits are pytest's: on a busy machine an example may take long for no fault of its own.
settings.register_profile("quick", max_examples=200, deadline=None)
settings.register_profile("fuzz", max_examples=20_000, deadline=None)
settings.load_profile("quick")
