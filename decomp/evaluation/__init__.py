"""Evaluations ask how good measures are: faithfulness, alignment with known evidence, agreement; one file each."""
