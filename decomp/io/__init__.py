"""Files: the tables that people bring, files that are complete or absent, amounts of memory."""
