"""The contract that every room shares: instructions, contexts, helpers, maps, registers, addresses.

Names and encodings, never semantics; standard library only."""
