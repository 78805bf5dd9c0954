"""The decomposition: the paper's rules, frozen operators, (target, source) pairs, the engine, and its result."""
