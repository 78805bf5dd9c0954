"""How good measures are: faithfulness, alignment with known evidence, agreement; one file a subject."""
