"""Evaluating measures: faithfulness, alignment with known evidence, agreement with each other, and on contexts."""
