"""The long table: columns, files, operations on tables."""
