"""The decomposition itself: rules, operators, pairs, the engine, its result."""
