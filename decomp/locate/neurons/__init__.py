"""Which neurons of the MLPs a text rests on."""
